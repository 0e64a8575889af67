"""Accounts, API tokens, the audit, and on each job who submitted it and what ran it

Only additions: a release before this one works on this schema too.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "api_token",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("scopes", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("all_jobs", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_token")),
        sa.UniqueConstraint("sha256", name=op.f("uq_api_token_sha256")),
    )
    op.create_index("ix_api_token_name", "api_token", ["name"], unique=True, postgresql_where="revoked_at IS NULL")
    # Of the tables in use only that of the jobs is locked, and once, so nothing can deadlock with running requests.
    for name, kind in (
        ("runtime", sa.Text()),
        ("model_sha256", sa.Text()),
        ("module_sha256", sa.Text()),
        ("model_options", postgresql.JSONB()),
        ("software_version", sa.Text()),
        ("token_id", sa.BigInteger()),
    ):
        op.add_column("segmentation_job", sa.Column(name, kind, nullable=True))
    op.add_column("segmentation_job", sa.Column("submitted_by", sa.Text(), server_default="", nullable=False))
    op.create_foreign_key(op.f("fk_segmentation_job_token_id"), "segmentation_job", "api_token", ["token_id"], ["id"])
    op.create_table(
        "account",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("password_hash", sa.Text(), nullable=False),
        sa.Column("roles", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("enabled", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("session_epoch", sa.Integer(), server_default="1", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("password_changed_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("last_login_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_account")),
        sa.UniqueConstraint("name", name=op.f("uq_account_name")),
    )
    op.create_table(
        "login_failure",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("blocked_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("forget_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_login_failure")),
    )
    op.create_index(op.f("ix_login_failure_forget_at"), "login_failure", ["forget_at"], unique=False)
    op.create_table(
        "audit_entry",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), server_default="", nullable=False),
        sa.Column("details", postgresql.JSONB(), server_default=sa.text("'{}'::jsonb"), nullable=False),
        sa.Column("previous_hash", sa.Text(), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_entry")),
    )
    op.execute(
        """
        CREATE FUNCTION refuse_change_of_audit() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION 'the audit is append-only: % is refused', TG_OP USING ERRCODE = 'insufficient_privilege';
        END $$
        """
    )
    op.execute(
        """
        CREATE TRIGGER audit_entry_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_entry
        FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_audit()
        """
    )


def downgrade() -> None:
    op.drop_constraint(op.f("fk_segmentation_job_token_id"), "segmentation_job", type_="foreignkey")
    for name in (
        *("submitted_by", "token_id", "software_version"),
        *("model_options", "module_sha256", "model_sha256", "runtime"),
    ):
        op.drop_column("segmentation_job", name)
    op.drop_table("audit_entry")
    op.execute("DROP FUNCTION refuse_change_of_audit()")
    op.drop_index(op.f("ix_login_failure_forget_at"), table_name="login_failure")
    op.drop_table("login_failure")
    op.drop_table("account")
    op.drop_index("ix_api_token_name", table_name="api_token", postgresql_where="revoked_at IS NULL")
    op.drop_table("api_token")
