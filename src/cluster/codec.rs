//! How the nodes of a job travel.

use std::sync::Arc;

use datafusion::error::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::physical_plan::ExecutionPlan;
use datafusion_proto::physical_plan::{PhysicalExtensionCodec, PhysicalProtoConverterExtension};
use serde::{Deserialize, Serialize};

use super::assignment::Assignment;
use super::read::ReadExec;
use super::stage::StageExec;
use super::tokenise::TokeniseExec;

/// What the bytes of our nodes begin with; the digit changes whenever what follows does, so that executors of another version
/// refuse a plan instead of misreading it.
const MAGIC: &[u8] = b"DEDUPE1\n";

/// Which node it is, and what its tasks are told.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Node<A> {
    Tokenise(A),
    Read(A),
    Stage(A),
}

/// Encodes [`TokeniseExec`], [`ReadExec`] and [`StageExec`]; leaves all other nodes to another codec, if there is one.
#[derive(Debug, Clone)]
pub struct DedupeCodec {
    others: Option<Arc<dyn PhysicalExtensionCodec>>,
}

impl DedupeCodec {
    /// A codec for our nodes alone.
    pub fn new() -> Self {
        Self { others: None }
    }

    /// A codec for our nodes and those of `others`.
    pub fn around(others: Arc<dyn PhysicalExtensionCodec>) -> Self {
        Self { others: Some(others) }
    }

    fn others(&self, what: &str) -> Result<&dyn PhysicalExtensionCodec> {
        let unknown = || DataFusionError::NotImplemented(format!("{what} is none of dedupe's nodes"));
        self.others.as_deref().ok_or_else(unknown)
    }
}

impl Default for DedupeCodec {
    fn default() -> Self {
        Self::new()
    }
}

impl PhysicalExtensionCodec for DedupeCodec {
    fn try_decode(
        &self,
        bytes: &[u8],
        inputs: &[Arc<dyn ExecutionPlan>],
        context: &TaskContext,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let Some(json) = bytes.strip_prefix(MAGIC) else {
            return self.others("a node that was received")?.try_decode(bytes, inputs, context, converter);
        };
        let node: Node<Arc<Assignment>> =
            serde_json::from_slice(json).map_err(|e| DataFusionError::External(Box::new(e)))?;
        let [input] = inputs else {
            return Err(DataFusionError::Internal("dedupe's nodes have one input".into()));
        };
        let input = Arc::clone(input);
        Ok(match node {
            Node::Tokenise(assignment) => Arc::new(TokeniseExec::try_new(input, assignment)?),
            Node::Read(assignment) => Arc::new(ReadExec::try_new(input, assignment)?),
            Node::Stage(assignment) => Arc::new(StageExec::try_new(input, assignment)?),
        })
    }

    fn try_encode(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        bytes: &mut Vec<u8>,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<()> {
        let node = if let Some(exec) = plan.downcast_ref::<TokeniseExec>() {
            Node::Tokenise(exec.assignment())
        } else if let Some(exec) = plan.downcast_ref::<ReadExec>() {
            Node::Read(exec.assignment())
        } else if let Some(exec) = plan.downcast_ref::<StageExec>() {
            Node::Stage(exec.assignment())
        } else {
            return self.others(plan.name())?.try_encode(plan, bytes, converter);
        };
        bytes.extend_from_slice(MAGIC);
        serde_json::to_writer(bytes, &node).map_err(|e| DataFusionError::External(Box::new(e)))
    }
}
