"""Time lines, digests, run times, the volume's identity, and when a janitor worked last

Only additions: a release before this one works on this schema too.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # The strongest lock on the jobs first: asked for after a weaker one, it would deadlock with running requests.
    op.add_column("segmentation_job", sa.Column("input_sha256", sa.Text(), nullable=True))
    op.add_column("segmentation_job", sa.Column("result_sha256", sa.Text(), nullable=True))
    op.add_column("segmentation_job", sa.Column("claimed_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("segmentation_job", sa.Column("run_seconds", sa.Double(), nullable=True))
    op.create_index(
        "ix_segmentation_job_history",
        "segmentation_job",
        ["model_id", sa.literal_column("finished_at DESC")],
        unique=False,
        postgresql_where="run_seconds IS NOT NULL",
    )
    op.create_table(
        "janitor_round",
        sa.Column("id", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("last_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("reap_after", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_janitor_round_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_janitor_round")),
    )
    op.create_table(
        "volume_identity",
        sa.Column("id", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("identity", sa.Text(), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_volume_identity_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_volume_identity")),
    )
    op.create_table(
        "job_event",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("attempt", sa.SmallInteger(), server_default="0", nullable=False),
        sa.Column("worker", sa.Text(), nullable=True),
        sa.Column("details", sa.Text(), server_default="", nullable=False),
        sa.ForeignKeyConstraint(
            ["job_id"], ["segmentation_job.id"], name=op.f("fk_job_event_job_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_job_event")),
    )
    op.create_index(op.f("ix_job_event_job_id"), "job_event", ["job_id"], unique=False)


def downgrade() -> None:
    op.drop_index(
        "ix_segmentation_job_history", table_name="segmentation_job", postgresql_where="run_seconds IS NOT NULL"
    )
    op.drop_column("segmentation_job", "run_seconds")
    op.drop_column("segmentation_job", "claimed_at")
    op.drop_column("segmentation_job", "result_sha256")
    op.drop_column("segmentation_job", "input_sha256")
    op.drop_index(op.f("ix_job_event_job_id"), table_name="job_event")
    op.drop_table("job_event")
    op.drop_table("volume_identity")
    op.drop_table("janitor_round")
