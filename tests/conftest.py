"""What holds for every test: none fails because a machine is slow."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("any-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
if settings.get_current_profile_name() == "default":  # with CI=true it is hypothesis's own, which says the same
    settings.load_profile("any-machine")
