"""Filters of the tables' columns: texts take words as they are, and compare what people read."""

from abc import abstractmethod
from typing import Any

from sqlalchemy import ColumnElement, Text, cast, func, not_
from starlette_admin.contrib.sqla.filters import SqlaFilterRegistry
from starlette_admin.fields import BaseField, EnumField, StringField, TextAreaField
from starlette_admin.filters import FilterApplyContext, filters
from starlette_admin.filters.base import BaseFilter, FilterDataType


def as_words(term: str) -> str:
    """`term` for LIKE, where % and _ would mean anything else."""
    return term.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


class TextFilter(BaseFilter):
    """One that looks at the text of a column."""

    data_type = FilterDataType.STRING

    def parse_value(self, raw: Any) -> str:
        """One text: the library takes it apart at commas, and leaves the quotes of each part."""
        return ",".join(_without_quotes(part) for part in raw) if isinstance(raw, list) else str(raw)

    def apply(self, ctx: FilterApplyContext) -> Any:
        """The rows that it keeps."""
        view: Any = ctx.view
        return self.keeps(cast(view.in_sql(ctx.field_name), Text), ctx.value)

    @abstractmethod
    def keeps(self, text: ColumnElement[str], value: str) -> ColumnElement[bool]:
        """Whether it keeps a row with `text`."""


class Contains(TextFilter):
    """In any case of letters."""

    name, label = "contains", "Contains"

    def keeps(self, text: ColumnElement[str], value: str) -> ColumnElement[bool]:
        """With the words somewhere in it."""
        return text.ilike(f"%{as_words(value)}%")


class NotContains(TextFilter):
    """In any case of letters."""

    name, label = "not_contains", "Does not contain"

    def keeps(self, text: ColumnElement[str], value: str) -> ColumnElement[bool]:
        """With the words nowhere in it."""
        return not_(func.coalesce(text, "").ilike(f"%{as_words(value)}%"))


class StartsWith(TextFilter):
    """In any case of letters."""

    name, label = "startswith", "Starts with"

    def keeps(self, text: ColumnElement[str], value: str) -> ColumnElement[bool]:
        """That begins with the words."""
        return text.ilike(f"{as_words(value)}%")


class EndsWith(TextFilter):
    """In any case of letters."""

    name, label = "endswith", "Ends with"

    def keeps(self, text: ColumnElement[str], value: str) -> ColumnElement[bool]:
        """That ends with the words."""
        return text.ilike(f"%{as_words(value)}")


class Equals(TextFilter):
    """Letter by letter."""

    name, label = "eq", "Equals"

    def keeps(self, text: ColumnElement[str], value: str) -> ColumnElement[bool]:
        """That is the value."""
        return text == value


class NotEquals(TextFilter):
    """Letter by letter."""

    name, label = "neq", "Not equal"

    def keeps(self, text: ColumnElement[str], value: str) -> ColumnElement[bool]:
        """That is something else."""
        return func.coalesce(text, "") != value


class Empty(TextFilter):
    """Nothing there, or an empty text, which look the same."""

    name, label, data_type = "is_null", "Is empty", FilterDataType.NONE

    def keeps(self, text: ColumnElement[str], value: str) -> ColumnElement[bool]:
        """With nothing to read."""
        return func.coalesce(text, "") == ""


class NotEmpty(TextFilter):
    """The contrary."""

    name, label, data_type = "is_not_null", "Is not empty", FilterDataType.NONE

    def keeps(self, text: ColumnElement[str], value: str) -> ColumnElement[bool]:
        """With anything to read."""
        return func.coalesce(text, "") != ""


TEXT_FILTERS: tuple[type[BaseFilter], ...] = (
    *(Contains, NotContains, StartsWith, EndsWith, Equals, NotEquals),
    *(Empty, NotEmpty),
)


class TableFilters(SqlaFilterRegistry):
    """The library's own for numbers, times and yes or no; ours for texts."""

    @filters(StringField)
    def string_filters(self, field: BaseField) -> list[type[BaseFilter]]:
        """What a text can be filtered by."""
        return list(TEXT_FILTERS)

    @filters(TextAreaField)
    def textarea_filters(self, field: BaseField) -> list[type[BaseFilter]]:
        """A long text too."""
        return list(TEXT_FILTERS)

    @filters(EnumField)
    def enum_filters(self, field: BaseField) -> list[type[BaseFilter]]:
        """And a choice, by the name that people read."""
        return list(TEXT_FILTERS)


def _without_quotes(part: str) -> str:
    quoted = len(part) >= 2 and part[0] == part[-1] == '"'
    return part[1:-1].replace('\\"', '"').replace("\\\\", "\\") if quoted else part
