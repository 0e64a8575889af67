"""Model families, their versions and what those need, and the files on the volume."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    ForeignKey,
    Identity,
    Integer,
    SmallInteger,
    false,
    func,
    text,
    true,
)
from sqlalchemy.orm import Mapped, mapped_column, relationship

from services.core.db.tables.base import Base


class ModelFamilyRow(Base):
    __tablename__ = "model_family"

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    canonical_name: Mapped[str] = mapped_column(unique=True)
    language_code: Mapped[str] = mapped_column(server_default="")
    described: Mapped[bool] = mapped_column(Boolean, server_default=false())
    """Whether the message carries a FamilyDescription at all; absent and empty are two messages."""
    name: Mapped[str] = mapped_column(server_default="")
    description: Mapped[str] = mapped_column(server_default="")
    clinical_domain: Mapped[str] = mapped_column(server_default="")
    anatomical_region: Mapped[str] = mapped_column(server_default="")
    primary_structure: Mapped[str] = mapped_column(server_default="")
    modalities: Mapped[str] = mapped_column(server_default="")
    gender: Mapped[int | None] = mapped_column(Integer)
    """NULL: the description carries no patient constraints."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now(), onupdate=func.now())

    body_parts: Mapped[list["BodyPartRow"]] = relationship(
        cascade="all, delete-orphan", order_by="BodyPartRow.position", lazy="selectin"
    )
    input_channels: Mapped[list["InputChannelRow"]] = relationship(
        cascade="all, delete-orphan", order_by="InputChannelRow.position", lazy="selectin"
    )
    versions: Mapped[list["ModelVersionRow"]] = relationship(
        back_populates="family", cascade="all, delete-orphan", order_by="ModelVersionRow.position", lazy="selectin"
    )


class BodyPartRow(Base):
    __tablename__ = "body_part"

    family_id: Mapped[int] = mapped_column(ForeignKey("model_family.id", ondelete="CASCADE"), primary_key=True)
    position: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    code: Mapped[int] = mapped_column(Integer)
    """ModelConstraints.BodyPartExaminedType; an open enumeration."""


class InputChannelRow(Base):
    __tablename__ = "input_channel"

    family_id: Mapped[int] = mapped_column(ForeignKey("model_family.id", ondelete="CASCADE"), primary_key=True)
    position: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    channel_id: Mapped[str] = mapped_column()
    constrained: Mapped[bool] = mapped_column(Boolean, server_default=false())
    """Whether the message carries Constraints at all."""
    accepted_modalities: Mapped[list[int]] = mapped_column(server_default=text("'{}'"))
    spacing_min: Mapped[list[float] | None] = mapped_column()
    """(x, y, z) in millimetres; so are the next three, dimensions in pixels."""
    spacing_max: Mapped[list[float] | None] = mapped_column()
    dimensions_min: Mapped[list[float] | None] = mapped_column()
    dimensions_max: Mapped[list[float] | None] = mapped_column()
    original_data_required: Mapped[bool] = mapped_column(Boolean, server_default=false())
    is_axial: Mapped[bool] = mapped_column(Boolean, server_default=false())


class ModelFileRow(Base):
    """A file below models/ on the volume. Never changed: attaching another file makes another row."""

    __tablename__ = "model_file"

    name: Mapped[str] = mapped_column(primary_key=True)
    sha256: Mapped[str] = mapped_column()
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    uploaded_name: Mapped[str] = mapped_column()
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class ModelVersionRow(Base):
    __tablename__ = "model_version"

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    family_id: Mapped[int] = mapped_column(ForeignKey("model_family.id", ondelete="CASCADE"), index=True)
    position: Mapped[int] = mapped_column(Integer)
    model_id: Mapped[str] = mapped_column(unique=True)
    """ModelVersion.ID: unique over all families, because requests name nothing else."""
    description: Mapped[str] = mapped_column(server_default="")
    created_on: Mapped[datetime | None] = mapped_column()
    created_on_nanoseconds: Mapped[int] = mapped_column(SmallInteger, server_default="0")
    """Below the microsecond, where timestamptz stops."""
    credits_required: Mapped[float] = mapped_column(server_default="0")
    major: Mapped[int] = mapped_column(BigInteger, server_default="0")
    minor: Mapped[int] = mapped_column(BigInteger, server_default="0")
    language_code: Mapped[str] = mapped_column(server_default="")

    enabled: Mapped[bool] = mapped_column(Boolean, server_default=true())
    runtime: Mapped[str | None] = mapped_column()
    """NULL: nothing attached; stored, but neither published nor runnable."""
    artifact_name: Mapped[str | None] = mapped_column(ForeignKey("model_file.name"))
    module_name: Mapped[str | None] = mapped_column(ForeignKey("model_file.name"))
    class_name: Mapped[str | None] = mapped_column()
    allow_pickle: Mapped[bool] = mapped_column(Boolean, server_default=false())
    options: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'::jsonb"))
    time_limit_seconds: Mapped[int | None] = mapped_column(Integer)

    family: Mapped[ModelFamilyRow] = relationship(back_populates="versions", lazy="joined")
    artifact: Mapped[ModelFileRow | None] = relationship(foreign_keys=[artifact_name], lazy="joined")
    module: Mapped[ModelFileRow | None] = relationship(foreign_keys=[module_name], lazy="joined")
    structures: Mapped[list["StructureRow"]] = relationship(
        cascade="all, delete-orphan", order_by="StructureRow.position", lazy="selectin"
    )
    regulatory_frameworks: Mapped[list["RegulatoryFrameworkRow"]] = relationship(
        cascade="all, delete-orphan", order_by="RegulatoryFrameworkRow.position", lazy="selectin"
    )


class StructureRow(Base):
    __tablename__ = "structure"

    version_id: Mapped[int] = mapped_column(ForeignKey("model_version.id", ondelete="CASCADE"), primary_key=True)
    position: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    structure_id: Mapped[str] = mapped_column(server_default="")
    name: Mapped[str] = mapped_column()
    color: Mapped[list[int] | None] = mapped_column(ARRAY(BigInteger))
    """Red, green, blue; NULL when the message carries none."""
    structure_type: Mapped[int] = mapped_column(Integer, server_default="0")
    fma_code: Mapped[int] = mapped_column(BigInteger, server_default="0")
    input_channel_id: Mapped[str] = mapped_column(server_default="")


class RegulatoryFrameworkRow(Base):
    __tablename__ = "regulatory_framework"

    version_id: Mapped[int] = mapped_column(ForeignKey("model_version.id", ondelete="CASCADE"), primary_key=True)
    position: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    framework: Mapped[str] = mapped_column(server_default="")
    status: Mapped[int] = mapped_column(Integer, server_default="0")
    udi: Mapped[str] = mapped_column(server_default="")
    manufacturer: Mapped[str] = mapped_column(server_default="")
    details_url: Mapped[str] = mapped_column(server_default="")
    release_date: Mapped[datetime | None] = mapped_column()
    release_date_nanoseconds: Mapped[int] = mapped_column(SmallInteger, server_default="0")
