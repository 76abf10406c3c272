"""What can keep models from being served; one sentence with what to do."""

from smartgrid_pyfunc.lifecycle.errors import LifecycleError


class ServingError(LifecycleError):
    """A server or the gateway could not be started."""
