//! `dedupe ingest` on a cluster: sources are found, and the commit is made, by this process; executors read the sources and judge
//! their rows.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use datafusion::physical_plan::ExecutionPlan;
use futures::FutureExt;
use futures::future::BoxFuture;

use super::assignment::Assignment;
use super::job::Job;
use super::reading::Part;
use crate::error::{Error, Result};
use crate::ingest::{Elsewhere, ingest_elsewhere};
use crate::options::{IngestOptions, OnBadRow};
use crate::report::{IngestReport, Progress};
use crate::session::Session;
use crate::source::discover::{Format, SourceFile};
use crate::source::parquet::ParquetFile;
use crate::store::{Store, compute};

/// Parquet files are cut into parts of about this many bytes.
const PART: u64 = 128 << 20;

/// How often it is looked whether the run was asked to stop.
const LOOK: Duration = Duration::from_millis(100);

/// Whoever runs plans.
pub(super) trait Engine: Sync {
    /// Runs a plan, and collects what comes out of it; or cancels it once `stop` is over, and is [interrupted](Error::Interrupted).
    fn run<'a>(
        &'a self,
        plan: Arc<dyn ExecutionPlan>,
        stop: BoxFuture<'a, ()>,
    ) -> BoxFuture<'a, Result<Vec<RecordBatch>>>;
}

/// Ingests `sources` into the table at `table` as [`ingest`](crate::ingest::ingest) does, with the rows read by so many tasks
/// of `engine`, and judged by as many.
pub(super) async fn ingest_on(
    engine: &dyn Engine,
    tasks: usize,
    sources: &[String],
    table: &str,
    options: &IngestOptions,
    progress: &Progress,
) -> Result<IngestReport> {
    if options.dry_run {
        return Err(Error::Usage(
            "a run on a cluster has no dry run: leave out --dry-run or --cluster".into(),
        ));
    }
    if sources.iter().any(|source| source == "-") {
        return Err(Error::Usage(
            "executors cannot read this process's standard input: name files or URLs".into(),
        ));
    }
    let location = Store::open(table, &options.store_options)?.url();
    let cluster = Cluster { engine, tasks: tasks.max(1), location };
    ingest_elsewhere(sources, table, options, progress, &cluster).await
}

struct Cluster<'a> {
    engine: &'a dyn Engine,
    tasks: usize,
    location: String,
}

impl Elsewhere for Cluster<'_> {
    fn judge<'a>(
        &'a self,
        session: Session,
        sources: Vec<(u32, SourceFile)>,
        options: &'a IngestOptions,
        progress: &'a Progress,
    ) -> BoxFuture<'a, Result<Session>> {
        self.run(session, sources, options, progress).boxed()
    }
}

impl Cluster<'_> {
    async fn run(
        &self,
        session: Session,
        sources: Vec<(u32, SourceFile)>,
        options: &IngestOptions,
        progress: &Progress,
    ) -> Result<Session> {
        let (bytes, nothing) = (sources.iter().filter_map(|(_, file)| file.size).sum(), sources.is_empty());
        let mut assignment = Assignment::of(&session, self.location.clone(), options.store_options.clone())?;
        assignment.fail_on_bad_row = options.on_bad_row == OnBadRow::Fail;
        assignment.max_line = options.max_line;
        let parts = parts_of(sources).await?;
        let tasks = shared_out(&parts, self.tasks);
        let parts: Vec<Part> = parts.into_iter().map(|(part, _)| part).collect();
        let job = Job::of_parts(session, assignment, &parts);
        if nothing {
            return job.adopt(&[]).await;
        }
        let planned = job.plan_parts(&tasks, self.tasks);
        let plan = planned.map_err(|e| Error::Internal(format!("the job cannot be planned: {e}")))?;
        let staged = self.engine.run(plan, cancelled(progress).boxed()).await?;
        progress.advance(bytes);
        let session = job.adopt(&staged).await?;
        let rows = session.forecast();
        progress.count(rows.read, rows.read - rows.accepted);
        Ok(session)
    }
}

async fn cancelled(progress: &Progress) {
    while !progress.is_cancelled() {
        tokio::time::sleep(LOOK).await;
    }
}

/// The parts that sources are read in, each with its bytes.
async fn parts_of(sources: Vec<(u32, SourceFile)>) -> Result<Vec<(Part, u64)>> {
    let mut parts = Vec::new();
    for (source, file) in sources {
        let whole = (Part::of(source, &file), file.size.unwrap_or_default());
        if file.format != Format::Parquet || whole.1 <= PART {
            parts.push(whole);
            continue;
        }
        let url = file.url.clone();
        let sizes = compute(move || {
            let file = ParquetFile::open(file.open()?, &url)?;
            Ok(file.row_groups().map(|group| group.compressed_bytes()).collect::<Vec<_>>())
        });
        let (mut first, mut bytes) = (0, 0);
        let sizes = sizes.await?;
        for (group, size) in sizes.iter().enumerate() {
            bytes += size;
            if bytes >= PART || group + 1 == sizes.len() {
                let part = Part { groups: Some(first..group + 1), ..whole.0.clone() };
                parts.push((part, bytes));
                (first, bytes) = (group + 1, 0);
            }
        }
        if sizes.is_empty() {
            parts.push(whole);
        }
    }
    Ok(parts)
}

/// The parts, in their order, as at most so many lists of about the same size.
fn shared_out(parts: &[(Part, u64)], tasks: usize) -> Vec<Vec<Part>> {
    // A part costs something even where it is small.
    let weight = |bytes: u64| bytes + (1 << 16);
    let total: u64 = parts.iter().map(|(_, bytes)| weight(*bytes)).sum();
    let share = (total / tasks.max(1) as u64).max(1);
    let (mut lists, mut list, mut done) = (Vec::new(), Vec::new(), 0);
    for (part, bytes) in parts {
        list.push(part.clone());
        done += weight(*bytes);
        if done >= share * (lists.len() as u64 + 1) && lists.len() + 1 < tasks {
            lists.push(std::mem::take(&mut list));
        }
    }
    if !list.is_empty() {
        lists.push(list);
    }
    lists
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn each_part_is_in_one_list_and_in_order(sizes in proptest::collection::vec(0u64..1 << 30, 1..60), tasks in 1usize..12) {
            let file = tempfile::NamedTempFile::with_suffix(".parquet").unwrap();
            let file = SourceFile::on_disk(file.path(), None).unwrap();
            let parts: Vec<(Part, u64)> =
                (0..).zip(&sizes).map(|(number, size)| (Part::of(number, &file), *size)).collect();
            let lists = shared_out(&parts, tasks);
            prop_assert!(lists.len() <= tasks && lists.iter().all(|list| !list.is_empty()));
            let all: Vec<u32> = lists.iter().flatten().map(|part| part.source).collect();
            prop_assert_eq!(all, (0..sizes.len() as u32).collect::<Vec<_>>());
        }
    }
}
