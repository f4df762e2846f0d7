//! The logical node of a job over the rows of a query, and its planner.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::catalog::Session;
use datafusion::common::{DFSchema, DFSchemaRef};
use datafusion::error::Result;
use datafusion::execution::context::QueryPlanner;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{Expr, LogicalPlan, UserDefinedLogicalNode, UserDefinedLogicalNodeCore};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_planner::{DefaultPhysicalPlanner, ExtensionPlanner, PhysicalPlanner};
use futures::FutureExt;
use futures::future::BoxFuture;

use super::assignment::Assignment;
use super::stage::{StageExec, staged_schema};
use super::tokenise::TokeniseExec;
use crate::operator::{DedupePlanner, only};

/// Stages the rows of a plan that are first of their key, and gives rows that say what was staged. Made by
/// [`Job::stage`](super::Job::stage).
#[derive(Debug)]
pub struct StageNode {
    input: LogicalPlan,
    assignment: Arc<Assignment>,
    schema: DFSchemaRef,
}

impl StageNode {
    pub(super) fn try_new(input: LogicalPlan, assignment: Arc<Assignment>) -> Result<Self> {
        let schema = Arc::new(DFSchema::try_from(staged_schema().as_ref().clone())?);
        Ok(Self { input, assignment, schema })
    }
}

impl PartialEq for StageNode {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.assignment, &other.assignment) && self.input == other.input
    }
}

impl Eq for StageNode {}

impl Hash for StageNode {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.assignment).hash(state);
        self.input.hash(state);
    }
}

impl PartialOrd for StageNode {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        if Arc::ptr_eq(&self.assignment, &other.assignment) {
            self.input.partial_cmp(&other.input)
        } else {
            None
        }
    }
}

impl UserDefinedLogicalNodeCore for StageNode {
    fn name(&self) -> &'static str {
        "Stage"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    // As by default it wants all columns, and nothing moves below it.

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stage: table={}", self.assignment.location)
    }

    fn with_exprs_and_inputs(&self, _: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<Self> {
        Self::try_new(only("Stage", inputs)?, Arc::clone(&self.assignment))
    }
}

/// Plans [`StageNode`]s, and leaves everything else to [`DedupePlanner`] and DataFusion: as a query planner for contexts, and as
/// an extension planner for those that have a query planner already.
#[derive(Debug, Clone, Copy, Default)]
pub struct StagePlanner;

// What `async_trait` would make of it, by hand: its own form takes the compiler several times as long.

impl QueryPlanner for StagePlanner {
    fn create_physical_plan<'a, 'b, 'c, 'r>(
        &'a self,
        plan: &'b LogicalPlan,
        session: &'c dyn Session,
    ) -> BoxFuture<'r, Result<Arc<dyn ExecutionPlan>>>
    where
        'a: 'r,
        'b: 'r,
        'c: 'r,
    {
        async move {
            let planner = DefaultPhysicalPlanner::with_extension_planners(vec![
                Arc::new(StagePlanner),
                Arc::new(DedupePlanner),
            ]);
            planner.create_physical_plan(plan, session).await
        }
        .boxed()
    }
}

impl ExtensionPlanner for StagePlanner {
    fn plan_extension<'a, 'b, 'c, 'd, 'e, 'f, 'g, 'h, 'r>(
        &'a self,
        _: &'b dyn PhysicalPlanner,
        node: &'c dyn UserDefinedLogicalNode,
        _: &'d [&'e LogicalPlan],
        inputs: &'f [Arc<dyn ExecutionPlan>],
        _: &'g dyn Session,
        _: &'h PhysicalPlanningContext,
    ) -> BoxFuture<'r, Result<Option<Arc<dyn ExecutionPlan>>>>
    where
        'a: 'r,
        'b: 'r,
        'c: 'r,
        'd: 'r,
        'e: 'r,
        'f: 'r,
        'g: 'r,
        'h: 'r,
    {
        let planned = match (node.as_any().downcast_ref::<StageNode>(), inputs) {
            (Some(node), [input]) => {
                // The shuffle between the two is the optimizer's: the upper one asks for it.
                TokeniseExec::try_new(Arc::clone(input), Arc::clone(&node.assignment))
                    .and_then(|rows| StageExec::try_new(Arc::new(rows), Arc::clone(&node.assignment)))
                    .map(|exec| Some(Arc::new(exec) as Arc<dyn ExecutionPlan>))
            }
            _ => Ok(None),
        };
        std::future::ready(planned).boxed()
    }
}
