"""What can go wrong with a runner, as the engine and the SDK name it."""

from orchestrator.errors import OrchestratorError


class RunnerProtocolError(OrchestratorError):
    """The peer broke the runner protocol, or a message cannot be put into its words.

    The message says what is wrong and at which byte, never what the frame carries. Where it is raised on a
    frame that came in, the peer is at fault: DESIGN §11 (Runners) says when that costs the connection.
    """

    group, code, status = "ws", "invalid_packet", 400


class TunnelPayloadTooLarge(RunnerProtocolError):
    """A runner's tunnel message carries more than the protocol allows (PROTOCOL §5.5).

    Unlike an undecodable frame it costs the runner its connection (PROTOCOL §2.4, pitfall 20).
    """


class RunnerConfigNotFound(OrchestratorError):
    """There is no serverless pool of this name."""

    group, code, status = "runner_config", "not_found", 400


class RunnerConfigInvalid(OrchestratorError):
    """The pool cannot be configured like this."""

    group, code, status = "runner_config", "invalid", 400


class MetadataNotFetched(OrchestratorError):
    """The pool's endpoint did not give its metadata; `reason` is the failure as the API shows it."""

    group, code, status = "serverless_runner_pool", "failed_to_fetch_metadata", 400
