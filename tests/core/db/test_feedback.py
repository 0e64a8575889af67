"""Feedback and telemetry are kept as they came; a score that is absent is NULL."""

import pytest
from hypothesis import given, settings
from sqlalchemy import select, update

from services.core.catalogue import ModelFamily, ModelVersion
from services.core.db import catalogue, overview
from services.core.db import feedback as store
from services.core.db.session import Database
from services.core.db.tables import FeedbackRow, TelemetryRow
from services.core.feedback import Feedback, StructureComment, Telemetry
from services.core.wire._pb import Model_pb2 as pb
from services.core.wire.feedback import decode_feedback, decode_telemetry
from tests.core.db.job_rows import Jobs, ago
from tests.core.messages import messages, wire


def newest_feedback(database: Database) -> Feedback:
    row = database.run(lambda session: session.scalars(select(FeedbackRow).order_by(FeedbackRow.id.desc())).first())
    assert row is not None
    assert row.created_at.utcoffset() is not None
    comments = tuple(StructureComment(c.structure_id, c.comments, c.score) for c in row.structure_comments)
    return Feedback(row.client_version, row.segmentation_id, row.accepted, row.comments, row.score, comments)


def test_an_absent_score_is_kept_as_absent_and_zero_as_zero(database: Database) -> None:
    for score in (None, 0.0, 4.5):
        feedback = Feedback(score=score, structure_comments=(StructureComment("s", "c", score),))
        database.run(store.store_feedback, feedback)
        kept = newest_feedback(database)
        assert kept == feedback
        assert (kept.score is None) == (score is None)


@settings(max_examples=20, deadline=None)
@given(messages(pb.SegmentationFeedback))
def test_any_feedback_is_kept_whole(database: Database, message: pb.SegmentationFeedback) -> None:
    feedback = decode_feedback(wire(message))
    database.run(store.store_feedback, feedback)
    assert newest_feedback(database) == feedback


@settings(max_examples=20, deadline=None)
@given(messages(pb.SegmentationTelemetry))
def test_any_telemetry_is_kept_whole(database: Database, message: pb.SegmentationTelemetry) -> None:
    telemetry = decode_telemetry(wire(message))
    database.run(store.store_telemetry, telemetry)
    statement = select(TelemetryRow).order_by(TelemetryRow.id.desc())
    row = database.run(lambda session: session.scalars(statement).first())
    assert row is not None
    assert {name: getattr(row, name) for name in Telemetry.__slots__} == {
        name: getattr(telemetry, name) for name in Telemetry.__slots__
    }


def test_the_overview_holds_the_versions_that_were_scored_last_and_counts_the_others(
    jobs_at_hand: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = jobs_at_hand.database
    monkeypatch.setattr(overview, "MOST_MODELS", 2)
    # Given more versions with scores than there is room for, the first by name scored longest ago
    names = ("a", "b", "c")
    database.run(catalogue.store_family, ModelFamily("Scored", versions=tuple(ModelVersion(name) for name in names)))
    for age, name in zip((300, 200, 100), names, strict=True):
        job = jobs_at_hand.accept(model_id=name)
        for score in (4.0, 5.0):
            database.run(store.store_feedback, Feedback(segmentation_id=str(job), score=score), job_id=job)
        with database.engine.begin() as connection:
            connection.execute(update(FeedbackRow).where(FeedbackRow.job_id == job).values(created_at=ago(age)))
    # When somebody looks
    found = database.run(overview.overview)
    # Then those that users think of now are there, each with its mean, and the other one is counted
    assert found.scores == [overview.Score("c", 4.5, 2), overview.Score("b", 4.5, 2)]
    assert found.more_scores == 1
