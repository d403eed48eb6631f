"""All views below the map, in the order of the navigation; then those of the footer."""

from __future__ import annotations

from gateway.console import (
    changes_view,
    clients_view,
    duties_view,
    providers_view,
    requests_view,
    rights_view,
    spend_view,
)

VIEWS = (
    requests_view.VIEW,
    changes_view.VIEW,
    clients_view.VIEW,
    spend_view.VIEW,
    duties_view.VIEW,
    providers_view.VIEW,
    rights_view.VIEW,
)
