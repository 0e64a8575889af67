"""What the console's tables have in common: who sees and edits them, two people editing one row, exports, the audit."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from sqlalchemy import ARRAY, String, Text, cast, inspect, literal_column, or_, select
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.requests import Request
from starlette_admin.contrib.sqla import ModelView
from starlette_admin.exceptions import FormValidationError
from starlette_admin.export import BaseExporter, CsvExporter
from starlette_admin.fields import BaseField, IntegerField
from starlette_admin.filters import FilterRegistry
from starlette_admin.importers import BaseImporter
from starlette_admin.types import RequestAction

from services.api.console.page import account_of, may
from services.api.console.tables.differences import differences
from services.api.console.tables.filters import TEXT_FILTERS, TableFilters, as_words
from services.api.console.tables.readable import ReadAs
from services.core.accounts import Permission
from services.core.db import audit
from services.core.wire.enumerations import name_of

VERSION_FIELD = "row_version"
"""A hidden field of each edit form: PostgreSQL's xmin of the row as it was shown, which every change renews."""

CONFLICT = (
    "Somebody else changed this record while you edited it. Nothing was saved: load the page again, look at what is "
    "there now, and repeat your change."
)


class Table(ModelView):
    """A table that is read only, unless `edits` names who may edit it."""

    permission: ClassVar[Permission] = Permission.SEE
    edits: ClassVar[Permission | None] = None
    edit_template = "console/edit.html"
    page_size = 25
    exporters: Sequence[BaseExporter | str] = [CsvExporter(escape_formulas=True)]
    importers: Sequence[BaseImporter | str] = []
    actions: Sequence[str] | None = ["export"]
    row_actions: Sequence[str] | None = ["view", "edit"]
    read_as: ClassVar[ReadAs] = {}
    """What people read in columns that the row itself does not hold like that, in SQL: names of other rows and of
    numbers. By it those are searched, filtered and sorted."""

    def __init__(self, model: type[Any]) -> None:
        super().__init__(model)
        self._searched = list(self.searchable_fields or ())
        self.sortable_field_mapping = dict(self.read_as)  # type: ignore[arg-type, misc] # it sorts by whatever SQL
        columns = inspect(model).columns
        plain = {column.key for column in columns if not isinstance(column.type, ARRAY)}
        for field in self.fields:
            # To the library, what can be filtered is what can be searched; here every column can that SQL knows.
            field.searchable = field.orderable = field.name in plain | set(self.read_as)
            if field.name in self.read_as:
                field.filters = list(TEXT_FILTERS)
        self.sortable_fields = [field.name for field in self.fields if field.orderable]

    def is_accessible(self, request: Request) -> bool:
        """Whether who asks may see it."""
        return may(request, self.permission)

    def can_create(self, request: Request) -> bool:
        """Never by a bare row: what is new here comes by a form of its own."""
        return False

    def can_edit(self, request: Request) -> bool:
        """Whether who asks may edit."""
        return self.edits is not None and may(request, self.edits)

    def can_delete(self, request: Request) -> bool:
        """Never: jobs, feedback and the audit refer to what is here."""
        return False

    async def is_action_allowed(self, request: Request, name: str) -> bool:
        """Whether the action is shown and done: only what this table names, whatever the library could do besides."""
        return name in (self.actions or ()) and await super().is_action_allowed(request, name)

    async def is_row_action_allowed(self, request: Request, name: str) -> bool:
        """The same for an action on one row."""
        if name not in (self.row_actions or ()):
            return False
        return self.can_edit(request) if name == "edit" else await super().is_row_action_allowed(request, name)

    def get_search_query(self, request: Request, term: str) -> Any:
        """Rows in which any searchable column holds the words as they are; % and _ mean themselves."""
        return or_(*(cast(self.in_sql(name), Text).ilike(f"%{as_words(term)}%") for name in self._searched))

    def in_sql(self, name: str) -> Any:
        """What people read in the column of that name."""
        return self.read_as[name] if name in self.read_as else getattr(self.model, name)

    def get_filter_registry(self) -> FilterRegistry:
        """Which filters a column has."""
        return TableFilters()

    async def find_by_pk(self, request: Request, pk: Any) -> Any:
        """The row; None for a key that cannot be one."""
        try:
            found = await super().find_by_pk(request, pk)
        except (ValueError, OverflowError):
            return None
        if found is not None and getattr(request.state, "action", None) is RequestAction.EDIT:
            shown = (await request.form()).get(VERSION_FIELD) if request.method == "POST" else None
            request.state.row_version = shown if isinstance(shown, str) else await self._row_version(request, found)
        return found

    async def edit(self, request: Request, pk: Any, data: dict[str, Any]) -> Any:
        """Save, unless somebody else saved since the form was shown; audited in the same transaction."""
        found = await self.find_by_pk(request, pk)
        shown = (await request.form()).get(VERSION_FIELD)
        if found is None or shown != await self._row_version(request, found, lock=True):
            raise FormValidationError({VERSION_FIELD: CONFLICT})
        self.check_editable(found)
        request.state.before = self.subject_of(found), self._edited_values(found)
        return await super().edit(request, pk, data)

    def check_editable(self, row: Any) -> None:
        """Raise FormValidationError where this very row is not edited in place."""

    def subject_of(self, row: Any) -> str:
        """What the audit calls the row."""
        return str(getattr(row, self.pk_attr or "id"))

    async def after_edit(self, request: Request, obj: Any) -> None:
        """Note who changed what, under the name that the row had."""
        session: AsyncSession = request.state.session
        actor, action = account_of(request).actor, f"{(self.key or '').replace('-', '_')}.edit"
        subject, before = request.state.before
        details = differences(before, self._edited_values(obj))
        await session.run_sync(
            lambda sync: audit.record(sync, actor=actor, action=action, subject=subject, details=details)
        )

    def _edited_values(self, row: Any) -> dict[str, Any]:
        """What the edit form may change. Columns that are in no form, as secrets would be, never get into the audit."""
        columns = self.model.__mapper__.column_attrs.keys()
        edited = (field for field in self.fields if not (field.exclude_from_edit or field.read_only))
        return {field.name: getattr(row, field.name) for field in edited if field.name in columns}

    async def _row_version(self, request: Request, row: Any, *, lock: bool = False) -> str | None:
        session: AsyncSession = request.state.session
        keys = self._pk_column if isinstance(self._pk_column, tuple) else (self._pk_column,)
        table = self.model.__tablename__
        statement = select(cast(literal_column(f"{table}.xmin"), String)).select_from(self.model)
        statement = statement.where(*(key == getattr(row, key.key) for key in keys))
        found: str | None = await session.scalar(statement.with_for_update() if lock else statement)
        return found


def named(name: str, label: str, names: Mapping[int, str], **options: Any) -> BaseField:
    """A number that is shown by its name; `read_as` has `name_in` for it."""

    def shown(_: Request, value: Any) -> str:
        return name_of(names, value)

    actions = (RequestAction.LIST, RequestAction.DETAIL, RequestAction.EXPORT)
    return IntegerField(name, label, formatter=dict.fromkeys(actions, shown), **options)
