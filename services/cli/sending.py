"""The bytes of an upload: PUT where the store wants them, or in chunks by gRPC."""

import http.client
import zlib
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import grpc

from lorikeet.adapter_store.v1 import adapter_store_service_pb2 as pb
from lorikeet.adapter_store.v1 import adapter_store_service_pb2_grpc as rpc
from services.cli.connection import Metadata
from services.cli.content import Content

Advance = Callable[[int, int], None]  # bytes sent, bytes in all

CONNECT_SECONDS = 5.0
SILENT_SECONDS = 120.0
STEP_BYTES = 32 * 1024 * 1024  # between two words of progress
TRIES_WITHOUT_PROGRESS = 2

_UNKNOWN = (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.PERMISSION_DENIED)
"""To a gateway or a store of the release before, the method is."""


class Sender:
    def __init__(
        self, stub: rpc.AdapterStoreServiceStub, metadata: Metadata, advance: Advance
    ) -> None:
        self._stub = stub
        self._metadata = metadata
        self._advance = advance

    def send(self, content: Content, upload: pb.Upload) -> None:
        """Everything that lacks. Raises grpc.RpcError."""
        if self._put_all(content, upload):
            return
        request = pb.GetUploadRequest(upload_id=upload.id)
        now = self._stub.GetUpload(request, metadata=self._metadata).upload
        if now.committed_bytes < now.size_bytes:
            chunks = _chunks(content, now, self._advance)
            self._stub.WriteChunks(chunks, metadata=self._metadata)

    def _put_all(self, content: Content, upload: pb.Upload) -> bool:
        """Whether all is there; what is not can only be sent by gRPC."""
        tries, lacked = TRIES_WITHOUT_PROGRESS, upload.size_bytes + 1
        while tries and (pieces := self._lacking(upload)):
            lacks = sum(piece.length for piece in pieces)
            tries = TRIES_WITHOUT_PROGRESS if lacks < lacked else tries - 1
            lacked = lacks
            try:
                for piece in pieces:
                    self._put(content, piece, upload.size_bytes)
            except ConnectionRefusedError:
                return False
            except (OSError, http.client.HTTPException):
                continue
            return True
        return False

    def _lacking(self, upload: pb.Upload) -> list[pb.StagePiece]:
        request = pb.StageUploadRequest(upload_id=upload.id)
        try:
            return list(self._stub.StageUpload(request, metadata=self._metadata).pieces)
        except grpc.RpcError as error:
            if not isinstance(error, grpc.Call) or error.code() not in _UNKNOWN:
                raise
            return []

    def _put(self, content: Content, piece: pb.StagePiece, total: int) -> None:
        """Raises OSError or HTTPException."""
        url = urlsplit(piece.url)
        kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
        connection = kind(url.netloc, timeout=CONNECT_SECONDS)
        try:
            connection.connect()
            connection.sock.settimeout(SILENT_SECONDS)
            connection.putrequest("PUT", f"{url.path}?{url.query}", skip_accept_encoding=True)
            connection.putheader("Content-Length", str(piece.length))
            connection.endheaders()
            end = piece.offset + piece.length
            for start in range(piece.offset, end, STEP_BYTES):
                length = min(STEP_BYTES, end - start)
                content.send(connection.sock, start, length)
                self._advance(start + length, total)
            response = connection.getresponse()
            response.read()
            if not 200 <= response.status < 300:
                raise OSError(f"refused: {response.status} {response.reason}")
        finally:
            connection.close()


def _chunks(
    content: Content, upload: pb.Upload, advance: Advance
) -> Iterator[pb.WriteChunksRequest]:
    offset = upload.committed_bytes
    while data := content.read(offset, upload.chunk_bytes):
        yield pb.WriteChunksRequest(
            upload_id=upload.id, offset=offset, data=data, crc32=zlib.crc32(data)
        )
        offset += len(data)
        advance(offset, upload.size_bytes)
