"""A request with the bytes that Velocity would send."""

import gzip

from services.core.volumes import Volume
from services.core.wire._pb.Model_pb2 import ModelInput
from services.core.wire.model_input import encode_model_input

ZLIB_DEFAULT_LEVEL = 6


def request_as_dotnet_sends_it(volume: Volume) -> bytes:
    """A request whose voxels were deflated by zlib at its level 6, as .NET's GZipStream does by default."""
    request = ModelInput.FromString(encode_model_input([volume], client_version="benchmark"))
    request.Channels[0].CalibratedVolume.Volume.Data = gzip.compress(volume.voxels.tobytes(), ZLIB_DEFAULT_LEVEL)
    return request.SerializeToString()
