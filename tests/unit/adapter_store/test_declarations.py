"""What is refused before any bytes come, and how much a tenant may have."""

import json
import math
from typing import Any

import pytest

from services.adapter_store.records import Provenance
from services.adapter_store.uploads import Uploads
from services.core.errors import InvalidRequest, ResourceExhausted
from services.core.types import TenantId
from tests.peft_folders import peft_config
from tests.uploading import ACME, DATA, begin, write


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"adapter": "../evil"}, "adapter"),
        ({"adapter": ""}, "adapter"),
        ({"adapter": "a/b"}, "adapter"),
        ({"adapter": "sql@2"}, "adapter"),
        ({"adapter": "A"}, "adapter"),
        ({"adapter": "a" * 64}, "adapter"),
        ({"adapter": "a\n"}, "adapter"),
        ({"adapter": ".."}, "adapter"),
        ({"tenant": TenantId("../x")}, "tenant"),
        ({"size_bytes": 0}, "size_bytes"),
        ({"size_bytes": 1 << 21}, "size_bytes"),
        ({"sha256": "zz"}, "sha256"),
        ({"base_model": "large"}, "base_model"),
        ({"provenance": Provenance(job="x" * 256)}, "provenance.job"),
        ({"provenance": Provenance(labels={"a b": ""})}, "provenance.labels"),
        ({"provenance": Provenance(metrics={"f1": math.nan})}, "provenance.metrics"),
        ({"provenance": Provenance(parents=("me",))}, "provenance.parents"),
        (
            {"provenance": Provenance(labels=dict.fromkeys(map(str, range(65)), ""))},
            "provenance.labels",
        ),
        ({"config_json": json.dumps(peft_config())}, "base_model_name_or_path"),
    ],
)
async def test_a_declaration_that_is_wrong_is_refused(
    uploads: Uploads, changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await begin(uploads, **changes)
    assert [violation.field for violation in caught.value.violations] == [says]


async def test_a_tenant_has_limits(uploads: Uploads) -> None:
    for number in range(3):
        await begin(uploads, DATA + bytes(number))
    with pytest.raises(ResourceExhausted, match="3 unfinished"):
        await begin(uploads, DATA + bytes(9))
    await begin(uploads, tenant=TenantId("other"))


async def test_a_tenant_has_so_many_adapters(uploads: Uploads) -> None:
    for name in ("a", "b", "c"):
        upload = await begin(uploads, adapter=name)
        await write(uploads, upload, DATA)
        await uploads.finish(upload.id, ACME)
    with pytest.raises(ResourceExhausted, match="3 adapters"):
        await begin(uploads, adapter="d")
    await begin(uploads, adapter="a", size_bytes=5)  # a new version is no new adapter
