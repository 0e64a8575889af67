"""The catalogue, segmentation jobs, feedback and telemetry"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "feedback",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("segmentation_id", sa.Text(), nullable=False),
        sa.Column("client_version", sa.Text(), server_default="", nullable=False),
        sa.Column("accepted", sa.Boolean(), nullable=False),
        sa.Column("comments", sa.Text(), server_default="", nullable=False),
        sa.Column("score", sa.Double(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_feedback")),
    )
    op.create_index(op.f("ix_feedback_segmentation_id"), "feedback", ["segmentation_id"], unique=False)
    op.create_table(
        "model_family",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("canonical_name", sa.Text(), nullable=False),
        sa.Column("language_code", sa.Text(), server_default="", nullable=False),
        sa.Column("described", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("name", sa.Text(), server_default="", nullable=False),
        sa.Column("description", sa.Text(), server_default="", nullable=False),
        sa.Column("clinical_domain", sa.Text(), server_default="", nullable=False),
        sa.Column("anatomical_region", sa.Text(), server_default="", nullable=False),
        sa.Column("primary_structure", sa.Text(), server_default="", nullable=False),
        sa.Column("modalities", sa.Text(), server_default="", nullable=False),
        sa.Column("gender", sa.Integer(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_model_family")),
        sa.UniqueConstraint("canonical_name", name=op.f("uq_model_family_canonical_name")),
    )
    op.create_table(
        "model_file",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("uploaded_name", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_model_file")),
    )
    op.create_table(
        "telemetry",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("segmentation_id", sa.Text(), nullable=False),
        sa.Column("model_id", sa.Text(), server_default="", nullable=False),
        sa.Column("client_version", sa.Text(), server_default="", nullable=False),
        sa.Column("upload_ms", sa.BigInteger(), nullable=False),
        sa.Column("wait_ms", sa.BigInteger(), nullable=False),
        sa.Column("download_ms", sa.BigInteger(), nullable=False),
        sa.Column("retries", sa.BigInteger(), nullable=False),
        sa.Column("client_error", sa.Integer(), nullable=False),
        sa.Column("client_error_information", sa.Text(), server_default="", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_telemetry")),
    )
    op.create_index(op.f("ix_telemetry_segmentation_id"), "telemetry", ["segmentation_id"], unique=False)
    op.create_table(
        "body_part",
        sa.Column("family_id", sa.BigInteger(), nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("code", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["family_id"], ["model_family.id"], name=op.f("fk_body_part_family_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("family_id", "position", name=op.f("pk_body_part")),
    )
    op.create_table(
        "input_channel",
        sa.Column("family_id", sa.BigInteger(), nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("channel_id", sa.Text(), nullable=False),
        sa.Column("constrained", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("accepted_modalities", sa.ARRAY(sa.Integer()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("spacing_min", sa.ARRAY(sa.Double()), nullable=True),
        sa.Column("spacing_max", sa.ARRAY(sa.Double()), nullable=True),
        sa.Column("dimensions_min", sa.ARRAY(sa.Double()), nullable=True),
        sa.Column("dimensions_max", sa.ARRAY(sa.Double()), nullable=True),
        sa.Column("original_data_required", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("is_axial", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.ForeignKeyConstraint(
            ["family_id"], ["model_family.id"], name=op.f("fk_input_channel_family_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("family_id", "position", name=op.f("pk_input_channel")),
    )
    op.create_table(
        "model_version",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("family_id", sa.BigInteger(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("model_id", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), server_default="", nullable=False),
        sa.Column("created_on", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_on_nanoseconds", sa.SmallInteger(), server_default="0", nullable=False),
        sa.Column("credits_required", sa.Double(), server_default="0", nullable=False),
        sa.Column("major", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("minor", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("language_code", sa.Text(), server_default="", nullable=False),
        sa.Column("enabled", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("runtime", sa.Text(), nullable=True),
        sa.Column("artifact_name", sa.Text(), nullable=True),
        sa.Column("module_name", sa.Text(), nullable=True),
        sa.Column("class_name", sa.Text(), nullable=True),
        sa.Column("allow_pickle", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column(
            "options", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'::jsonb"), nullable=False
        ),
        sa.Column("time_limit_seconds", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(["artifact_name"], ["model_file.name"], name=op.f("fk_model_version_artifact_name")),
        sa.ForeignKeyConstraint(
            ["family_id"], ["model_family.id"], name=op.f("fk_model_version_family_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["module_name"], ["model_file.name"], name=op.f("fk_model_version_module_name")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_model_version")),
        sa.UniqueConstraint("model_id", name=op.f("uq_model_version_model_id")),
    )
    op.create_index(op.f("ix_model_version_family_id"), "model_version", ["family_id"], unique=False)
    op.create_table(
        "structure_comment",
        sa.Column("feedback_id", sa.BigInteger(), nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("structure_id", sa.Text(), server_default="", nullable=False),
        sa.Column("comments", sa.Text(), server_default="", nullable=False),
        sa.Column("score", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(
            ["feedback_id"], ["feedback.id"], name=op.f("fk_structure_comment_feedback_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("feedback_id", "position", name=op.f("pk_structure_comment")),
    )
    op.create_table(
        "regulatory_framework",
        sa.Column("version_id", sa.BigInteger(), nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("framework", sa.Text(), server_default="", nullable=False),
        sa.Column("status", sa.Integer(), server_default="0", nullable=False),
        sa.Column("udi", sa.Text(), server_default="", nullable=False),
        sa.Column("manufacturer", sa.Text(), server_default="", nullable=False),
        sa.Column("details_url", sa.Text(), server_default="", nullable=False),
        sa.Column("release_date", sa.DateTime(timezone=True), nullable=True),
        sa.Column("release_date_nanoseconds", sa.SmallInteger(), server_default="0", nullable=False),
        sa.ForeignKeyConstraint(
            ["version_id"], ["model_version.id"], name=op.f("fk_regulatory_framework_version_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("version_id", "position", name=op.f("pk_regulatory_framework")),
    )
    op.create_table(
        "segmentation_job",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("model_id", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), server_default="queued", nullable=False),
        sa.Column("priority", sa.SmallInteger(), nullable=False),
        sa.Column("progress_percent", sa.SmallInteger(), server_default="0", nullable=False),
        sa.Column("error_code", sa.SmallInteger(), server_default="0", nullable=False),
        sa.Column("error_text", sa.Text(), server_default="", nullable=False),
        sa.Column("remarks", sa.Text(), server_default="", nullable=False),
        sa.Column("attempt", sa.SmallInteger(), server_default="0", nullable=False),
        sa.Column("claim_token", sa.Uuid(), nullable=True),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("worker", sa.Text(), nullable=True),
        sa.Column("cancel_requested", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("run_after", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column(
            "stage_seconds",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
        ),
        sa.Column("input_file", sa.Text(), nullable=True),
        sa.Column("result_file", sa.Text(), nullable=True),
        sa.Column("input_bytes", sa.BigInteger(), nullable=False),
        sa.Column("voxel_count", sa.BigInteger(), nullable=False),
        sa.Column("result_bytes", sa.BigInteger(), nullable=True),
        sa.Column("client_version", sa.Text(), server_default="", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "state IN ('queued', 'running', 'succeeded', 'failed', 'cancelled', 'expired')",
            name=op.f("ck_segmentation_job_state"),
        ),
        sa.CheckConstraint("progress_percent BETWEEN 0 AND 100", name=op.f("ck_segmentation_job_progress_percent")),
        sa.ForeignKeyConstraint(
            ["model_id"], ["model_version.model_id"], name=op.f("fk_segmentation_job_model_id"), onupdate="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_segmentation_job")),
    )
    op.create_index(
        "ix_segmentation_job_claimable",
        "segmentation_job",
        [sa.literal_column("priority DESC"), "created_at"],
        unique=False,
        postgresql_where="state = 'queued'",
    )
    op.create_index(
        "ix_segmentation_job_expiry",
        "segmentation_job",
        ["expires_at"],
        unique=False,
        postgresql_where="state <> 'expired'",
    )
    op.create_index(
        "ix_segmentation_job_files",
        "segmentation_job",
        ["id"],
        unique=False,
        postgresql_where="input_file IS NOT NULL OR result_file IS NOT NULL",
    )
    op.create_index(
        "ix_segmentation_job_lease",
        "segmentation_job",
        ["lease_expires_at"],
        unique=False,
        postgresql_where="state = 'running'",
    )
    op.create_index(op.f("ix_segmentation_job_model_id"), "segmentation_job", ["model_id"], unique=False)
    op.create_table(
        "structure",
        sa.Column("version_id", sa.BigInteger(), nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("structure_id", sa.Text(), server_default="", nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("color", sa.ARRAY(sa.BigInteger()), nullable=True),
        sa.Column("structure_type", sa.Integer(), server_default="0", nullable=False),
        sa.Column("fma_code", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("input_channel_id", sa.Text(), server_default="", nullable=False),
        sa.ForeignKeyConstraint(
            ["version_id"], ["model_version.id"], name=op.f("fk_structure_version_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("version_id", "position", name=op.f("pk_structure")),
    )


def downgrade() -> None:
    op.drop_table("structure")
    op.drop_index(op.f("ix_segmentation_job_model_id"), table_name="segmentation_job")
    op.drop_index("ix_segmentation_job_lease", table_name="segmentation_job", postgresql_where="state = 'running'")
    op.drop_index(
        "ix_segmentation_job_files",
        table_name="segmentation_job",
        postgresql_where="input_file IS NOT NULL OR result_file IS NOT NULL",
    )
    op.drop_index("ix_segmentation_job_expiry", table_name="segmentation_job", postgresql_where="state <> 'expired'")
    op.drop_index("ix_segmentation_job_claimable", table_name="segmentation_job", postgresql_where="state = 'queued'")
    op.drop_table("segmentation_job")
    op.drop_table("regulatory_framework")
    op.drop_table("structure_comment")
    op.drop_index(op.f("ix_model_version_family_id"), table_name="model_version")
    op.drop_table("model_version")
    op.drop_table("input_channel")
    op.drop_table("body_part")
    op.drop_index(op.f("ix_telemetry_segmentation_id"), table_name="telemetry")
    op.drop_table("telemetry")
    op.drop_table("model_file")
    op.drop_table("model_family")
    op.drop_index(op.f("ix_feedback_segmentation_id"), table_name="feedback")
    op.drop_table("feedback")
