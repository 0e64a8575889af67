"""Who sent feedback, and which job it is about

Only additions: a release before this one works on this schema too.
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("feedback", sa.Column("submitted_by", sa.Text(), server_default="", nullable=False))
    op.add_column("feedback", sa.Column("job_id", sa.Uuid(), nullable=True))
    op.create_foreign_key(
        op.f("fk_feedback_job_id"), "feedback", "segmentation_job", ["job_id"], ["id"], ondelete="SET NULL"
    )
    op.create_index(op.f("ix_feedback_job_id"), "feedback", ["job_id"], unique=False)


def downgrade() -> None:
    op.drop_index(op.f("ix_feedback_job_id"), table_name="feedback")
    op.drop_constraint(op.f("fk_feedback_job_id"), "feedback", type_="foreignkey")
    op.drop_column("feedback", "job_id")
    op.drop_column("feedback", "submitted_by")
