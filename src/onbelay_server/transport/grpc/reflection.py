"""Reflection for grpcurl and its like, under both names that clients ask for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import aclosing
from typing import Any, Final

from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import Default
from grpc_reflection.v1alpha import reflection_pb2  # type: ignore[import-untyped]
from grpc_reflection.v1alpha.reflection import (  # type: ignore[import-untyped]
    aio as reflection_aio,
)

from onbelay_server.transport.grpc.methods import NativeMethod
from onbelay_server.transport.grpc.validation import parse

_ALPHA: Final = "grpc.reflection.v1alpha"
_STABLE: Final = "grpc.reflection.v1"


def reflection_methods(services: Iterable[str]) -> Mapping[str, NativeMethod]:
    """Reflection over `services` and itself. It needs a credential, like the services it shows.

    The two versions differ in their package's name only, so one servicer answers both; the stable
    one's descriptor is made from the other's.
    """
    _describe_stable()
    packages = (_ALPHA, _STABLE)
    own = [f"{package}.ServerReflection" for package in packages]
    servicer = reflection_aio.ReflectionServicer([*services, *own])

    async def answer(requests: AsyncIterator[bytes], context: Any) -> None:
        async with aclosing(servicer.ServerReflectionInfo(_parsed(requests), context)) as replies:
            async for reply in replies:
                await context.write(reply.SerializeToString())

    paths = [f"/{name}/ServerReflectionInfo" for name in own]
    return {
        path: NativeMethod(path=path, is_open=False, is_lasting=True, answer=answer)
        for path in paths
    }


async def _parsed(requests: AsyncIterator[bytes]) -> AsyncIterator[Any]:
    async for data in requests:
        yield parse(reflection_pb2.ServerReflectionRequest, data)


def _describe_stable() -> None:
    described = FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(described)
    described.name = "grpc/reflection/v1/reflection.proto"
    described.package = _STABLE
    for message in described.message_type:
        for field in (inner for inner in message.field if inner.type_name):
            field.type_name = field.type_name.replace(f".{_ALPHA}.", f".{_STABLE}.")
    for service in described.service:
        for method in service.method:
            method.input_type = method.input_type.replace(f".{_ALPHA}.", f".{_STABLE}.")
            method.output_type = method.output_type.replace(f".{_ALPHA}.", f".{_STABLE}.")
    Default().AddSerializedFile(described.SerializeToString())
