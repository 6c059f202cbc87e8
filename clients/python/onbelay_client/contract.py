# ruff: noqa: F403
"""The messages and enums of `onbelay.v1` under one name.

from onbelay_client import contract as pb
pb.RunFilter(states=[pb.RUN_STATE_RUNNING])
"""

from __future__ import annotations

from onbelay.v1.access_pb2 import *
from onbelay.v1.access_service_pb2 import *
from onbelay.v1.agent_pb2 import *
from onbelay.v1.agent_service_pb2 import *
from onbelay.v1.approval_event_pb2 import *
from onbelay.v1.approval_pb2 import *
from onbelay.v1.approval_request_pb2 import *
from onbelay.v1.artifact_pb2 import *
from onbelay.v1.artifact_request_pb2 import *
from onbelay.v1.budget_pb2 import *
from onbelay.v1.effect_event_pb2 import *
from onbelay.v1.error_reason_pb2 import *
from onbelay.v1.event_pb2 import *
from onbelay.v1.harness_pb2 import *
from onbelay.v1.operation_pb2 import *
from onbelay.v1.operation_request_pb2 import *
from onbelay.v1.output_event_pb2 import *
from onbelay.v1.run_event_pb2 import *
from onbelay.v1.run_filter_pb2 import *
from onbelay.v1.run_pb2 import *
from onbelay.v1.run_request_pb2 import *
from onbelay.v1.step_event_pb2 import *
from onbelay.v1.step_pb2 import *
from onbelay.v1.tool_event_pb2 import *
from onbelay.v1.tool_pb2 import *
from onbelay.v1.wait_pb2 import *
from onbelay.v1.watch_request_pb2 import *
