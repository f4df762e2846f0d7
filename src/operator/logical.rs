//! The logical node, its planner, and [`DedupeDataFrame::dedupe`].

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use datafusion::catalog::Session;
use datafusion::common::DFSchemaRef;
use datafusion::dataframe::DataFrame;
use datafusion::error::Result;
use datafusion::execution::context::QueryPlanner;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{
    Expr, Extension, LogicalPlan, UserDefinedLogicalNode, UserDefinedLogicalNodeCore,
};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_planner::{DefaultPhysicalPlanner, ExtensionPlanner, PhysicalPlanner};
use futures::FutureExt;
use futures::future::BoxFuture;

use super::exec::DedupeExec;
use super::failure::external;
use super::only;
use super::session::{Keep, PlanSession};

/// Deduplication of a [`DataFrame`].
pub trait DedupeDataFrame {
    /// The rows that are the first of their key, judged in `session`. The context must know how to plan it, as that of
    /// [`context`](super::context()) does.
    fn dedupe(self, session: &PlanSession) -> Result<DataFrame>;
}

impl DedupeDataFrame for DataFrame {
    fn dedupe(self, session: &PlanSession) -> Result<DataFrame> {
        let (state, plan) = self.into_parts();
        let node = DedupeNode::try_new(plan, session.clone())?;
        Ok(DataFrame::new(state, LogicalPlan::Extension(Extension { node: Arc::new(node) })))
    }
}

/// The rows of a plan that are the first of their key.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct DedupeNode {
    input: LogicalPlan,
    session: PlanSession,
    /// The columns of the input that must be there, whatever else is wanted of it.
    needed: Vec<usize>,
}

impl DedupeNode {
    /// Deduplicates `input` in `session`. Fails if the key is not among its columns.
    pub fn try_new(input: LogicalPlan, session: PlanSession) -> Result<Self> {
        let schema = Arc::clone(input.schema().inner());
        let key = session.bind(&schema).map_err(external)?;
        let needed = session.kept_columns(&schema, &key);
        Ok(Self { input, session, needed })
    }
}

impl PartialOrd for DedupeNode {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        if self.session == other.session { self.input.partial_cmp(&other.input) } else { None }
    }
}

impl UserDefinedLogicalNodeCore for DedupeNode {
    fn name(&self) -> &'static str {
        "Dedupe"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        self.input.schema()
    }

    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    // As by default no predicate moves below it, whatever its columns, and no limit: rows that are not judged are not seen.

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let table = self.session.table();
        write!(f, "Dedupe: key=[{}], table={}", table.key().join(", "), table.ledger().store().url())?;
        if self.session.keep() == Keep::Keys { f.write_str(", keep=keys") } else { Ok(()) }
    }

    fn with_exprs_and_inputs(&self, _: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<Self> {
        Self::try_new(only("Dedupe", inputs)?, self.session.clone())
    }

    /// What is wanted, and what is judged or kept.
    fn necessary_children_exprs(&self, wanted: &[usize]) -> Option<Vec<Vec<usize>>> {
        let mut columns: Vec<usize> = wanted.iter().chain(&self.needed).copied().collect();
        columns.sort_unstable();
        columns.dedup();
        Some(vec![columns])
    }
}

/// Plans [`DedupeNode`], and leaves everything else to DataFusion: as a query planner for contexts, and as an extension
/// planner for those that have a query planner already.
#[derive(Debug, Clone, Copy, Default)]
pub struct DedupePlanner;

// What `async_trait` would make of it, by hand: its own form takes the compiler several times as long.

impl QueryPlanner for DedupePlanner {
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
            let planner = DefaultPhysicalPlanner::with_extension_planners(vec![Arc::new(DedupePlanner)]);
            planner.create_physical_plan(plan, session).await
        }
        .boxed()
    }
}

impl ExtensionPlanner for DedupePlanner {
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
        let planned = match (node.as_any().downcast_ref::<DedupeNode>(), inputs) {
            (Some(node), [input]) => DedupeExec::try_new(Arc::clone(input), node.session.clone())
                .map(|exec| Some(Arc::new(exec) as Arc<dyn ExecutionPlan>)),
            _ => Ok(None),
        };
        std::future::ready(planned).boxed()
    }
}
