from collections.abc import AsyncIterator

import pytest

from services.core.errors import InvalidRequest
from services.gateway.chat import ChatTemplates
from services.gateway.conversation import ChatMessage, Conversation

HELLO = Conversation((ChatMessage("user", "hello"),))


@pytest.fixture
async def templates() -> AsyncIterator[ChatTemplates]:
    templates = ChatTemplates(seconds=0.5)
    yield templates
    await templates.close()


async def test_a_template_is_rendered(templates: ChatTemplates) -> None:
    template = "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}{% endfor %}"
    assert await templates.render(template, HELLO, {"bos_token": "<s>"}) == "<s>user: hello"


@pytest.mark.parametrize(
    "template",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{{ ('a' * 9999999999) }}",
        "{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}",
        "{{ ''.__class__.__mro__ }}{{ raise_exception('no') }}",
        "{% if %}",
    ],
)
async def test_a_bad_template_is_refused_and_the_next_works(
    templates: ChatTemplates, template: str
) -> None:
    with pytest.raises(InvalidRequest):
        await templates.render(template, HELLO, {})
    assert await templates.render("{{ messages[0].content }}", HELLO, {}) == "hello"
