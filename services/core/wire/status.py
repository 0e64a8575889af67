"""ApiInformation, Credits and VendorStatus: what the server says about itself."""

from services.core.settings import Settings
from services.core.wire._pb import Model_pb2 as pb
from services.core.wire.fields import Encoding, serialize


def encode_api_information(version: str, encoding: Encoding) -> bytes:
    """The ApiInformation message."""
    return serialize(pb.ApiInformation(Version=version), encoding)


def encode_credits(settings: Settings, encoding: Encoding) -> bytes:
    """The Credits message: on a local server they mean nothing, and it says so."""
    message = pb.Credits(
        TotalCredits=settings.total_credits,
        DisplayCreditsWarning=True,
        CreditsWarningMessage=settings.credits_message,
        LanguageCode=settings.language_code,
    )
    return serialize(message, encoding)


def encode_vendor_status(settings: Settings, service_url: str, encoding: Encoding) -> bytes:
    """The VendorStatus message; `service_url` is where clients reach this server."""
    message = pb.VendorStatus(
        TotalCredits=settings.total_credits,
        LowCreditsWarningMessage=settings.credits_message,
        ClientCountryCode=settings.country_code,
        SegmentationServiceStatus=pb.VendorStatus.Available,
        SegmentationServiceUrl=service_url,
        AvailableSegmentationServiceLocations=[settings.service_location],
        VendorName=settings.vendor_name,
        VendorDescriptionHtml=settings.vendor_description_html,
        LanguageCode=settings.language_code,
    )
    return serialize(message, encoding)
