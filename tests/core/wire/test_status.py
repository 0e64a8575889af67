"""ApiInformation, Credits and VendorStatus say what the settings say."""

import json
from pathlib import Path

from services.core.settings import Settings
from services.core.wire._pb import Model_pb2 as pb
from services.core.wire.fields import Encoding
from services.core.wire.status import encode_api_information, encode_credits, encode_vendor_status

SETTINGS = Settings(database_url="postgresql://", redis_url="redis://", volume_dir=Path("volume"))


def test_the_version_is_told() -> None:
    assert pb.ApiInformation.FromString(encode_api_information("1.2", Encoding.PROTOBUF)).Version == "1.2"
    assert json.loads(encode_api_information("1.2", Encoding.JSON)) == {"Version": "1.2"}


def test_credits_are_plenty_and_do_not_apply() -> None:
    message = pb.Credits.FromString(encode_credits(SETTINGS, Encoding.PROTOBUF))
    assert message.TotalCredits == 100_000
    assert message.DisplayCreditsWarning is True
    assert "do not apply" in message.CreditsWarningMessage
    assert message.LanguageCode == "en-US"


def test_the_vendor_is_available_at_its_url() -> None:
    data = encode_vendor_status(SETTINGS, "https://segint.example/", Encoding.PROTOBUF)
    message = pb.VendorStatus.FromString(data)
    assert message.SegmentationServiceStatus == pb.VendorStatus.Available
    assert message.SegmentationServiceUrl == "https://segint.example/"
    assert list(message.AvailableSegmentationServiceLocations) == ["US"]
    assert (message.VendorName, message.ClientCountryCode, message.LanguageCode) == ("Research Server", "US", "en-US")
    assert "do not apply" in message.LowCreditsWarningMessage


def test_settings_change_what_is_said() -> None:
    changed = SETTINGS.model_copy(
        update={"total_credits": 0.0, "credits_message": "", "service_location": "Århus", "country_code": "DK"}
    )
    document = json.loads(encode_vendor_status(changed, "", Encoding.JSON))
    assert document["TotalCredits"] == 0
    assert document["AvailableSegmentationServiceLocations"] == ["Århus"]
    assert document["ClientCountryCode"] == "DK"
    assert document["SegmentationServiceStatus"] == "Available"
