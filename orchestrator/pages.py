"""Lists of the admin, page by page by the rows' keys: the millionth row is found as quickly as the first.

Nothing is counted, and the order is that of the keys, the newest first: whatever else a list can be ordered by
would have to be sorted first.
"""

from typing import Any

from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest

BEFORE, AFTER = "before", "after"
"""Parameters of a list: the key of the row after which, or before which, its page begins."""


class KeysetChangeList(ChangeList):
    """One page of a list: `older` and `newer` lead to its neighbours."""

    older: str | None = None
    newer: str | None = None

    def get_filters_params(self, params: Any = None) -> dict[str, Any]:
        """Leave out what names a page."""
        return {
            name: value
            for name, value in super().get_filters_params(params).items()
            if name not in (BEFORE, AFTER)
        }

    def get_ordering(self, request: HttpRequest, queryset: QuerySet[Any]) -> list[Any]:
        """Order by the key, the newest first."""
        return ["-pk"]

    def get_ordering_field_columns(self) -> dict[int, Any]:
        """Show no column as one the list is ordered by."""
        return {}

    def get_results(self, request: HttpRequest) -> None:
        """Read one row more than is shown, which tells whether there is a page after it."""
        before, after = request.GET.get(BEFORE), request.GET.get(AFTER)
        rows = self.queryset
        if after is not None:
            found = list(rows.filter(pk__gt=self._key(after)).order_by("pk")[: self.list_per_page + 1])
            more, found = len(found) > self.list_per_page, found[: self.list_per_page][::-1]
            self._link(found, newer=more, older=True)
        else:
            rows = rows if before is None else rows.filter(pk__lt=self._key(before))
            found = list(rows[: self.list_per_page + 1])
            more, found = len(found) > self.list_per_page, found[: self.list_per_page]
            self._link(found, newer=before is not None, older=more)
        self.result_list = found
        self.result_count = len(found)
        self.full_result_count = self.result_count  # else the page would offer to show all
        self.show_full_result_count = False
        self.show_admin_actions = True
        self.can_show_all = self.multi_page = False

    def _key(self, text: str) -> Any:
        """Return a key as the column has it; for a text that is none, that of no row."""
        key = self.model._meta.pk
        try:
            return key.to_python(text.replace("\0", ""))
        except ValidationError:
            return key.to_python("0")

    def _link(self, found: list[Any], *, newer: bool, older: bool) -> None:
        if found and newer:
            self.newer = self.get_query_string({AFTER: found[0].pk}, [BEFORE])
        if found and older:
            self.older = self.get_query_string({BEFORE: found[-1].pk}, [AFTER])
