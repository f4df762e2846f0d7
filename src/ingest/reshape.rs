//! Runs whose sources' rows are made into others before they are judged: filtered, cut to some columns, joined.
//!
//! What becomes of single sources cannot be told then, so the result is one source of its own. It is recognised by what
//! is done and by all the sources that it is done to: the same query over the same files is not run again, and over any
//! others its rows are judged one by one. The files themselves are listed for people, and count for nothing: a plain
//! ingest of them reads them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arrow_schema::SchemaRef;
use futures::StreamExt;
use futures::future::BoxFuture;
use tokio::sync::mpsc;
use xxhash_rust::xxh3::xxh3_128;

use super::plan::{self, Planned};
use super::rows::{Bad, RowStream, SourceRows};
use super::{Run, reject};
use crate::error::{Error, Result};
use crate::ledger::State;
use crate::ledger::entry::{SkippedSource, SourceUse};
use crate::options::IngestOptions;
use crate::session::{Rows, Session};
use crate::source::discover::SourceFile;
use crate::verdict::Verdict;
use crate::workers::Workers;

/// Blocks of bad lines that wait at most.
const WAITING: usize = 16;

/// What makes other rows of those of all sources.
#[derive(Clone)]
pub struct Reshape {
    text: String,
    apply: Arc<dyn Fn(SourceRows) -> BoxFuture<'static, Result<Reshaped>> + Send + Sync>,
}

/// The rows that come of it.
pub struct Reshaped {
    /// The schema of all of them.
    pub schema: SchemaRef,
    /// The rows, in an order that is the same each time: of two with one key the first is kept.
    pub rows: RowStream,
}

impl Reshape {
    /// `apply` is given the rows of all sources. `text` stands for it in manifests, where others have the URL of a source, and
    /// for ever: with the same text and the same sources it is taken to give the same rows.
    pub fn new(
        text: impl Into<String>,
        apply: impl Fn(SourceRows) -> BoxFuture<'static, Result<Reshaped>> + Send + Sync + 'static,
    ) -> Self {
        Self { text: text.into(), apply: Arc::new(apply) }
    }

    /// The text that stands for it.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The identity of what it makes of `files`, if all of them have one.
    pub(super) fn identity<'a>(&self, files: impl Iterator<Item = &'a SourceFile>) -> Option<u128> {
        let files: Vec<String> = files.map(SourceFile::identity).collect::<Option<_>>()?;
        Some(xxh3_128(format!("{}\n{}", files.join("\n"), self.text).as_bytes()))
    }
}

impl fmt::Debug for Reshape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reshape({:?})", self.text)
    }
}

impl fmt::Debug for Reshaped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reshaped({:?})", self.schema)
    }
}

/// Decides whether the sources are read at all. `unreadable` are those that an earlier attempt failed on.
pub(super) fn sort_out(
    reshape: &Reshape,
    files: &[SourceFile],
    state: Option<&State>,
    unreadable: &BTreeMap<String, String>,
    options: &IngestOptions,
) -> Result<Vec<Planned>> {
    let id = reshape.identity(files.iter());
    let seen = match (id, state) {
        (Some(id), Some(state)) => state.source(id)?,
        _ => None,
    };
    let mut note = SourceUse {
        url: reshape.text.clone(),
        id,
        replay_of: seen.map(|seen| seen.version),
        ..SourceUse::default()
    };
    if let Some(seen) = seen.filter(|_| !options.reread) {
        note.rows.count(Verdict::Replayed, seen.rows);
        return Ok(vec![Planned::Recognised { note }]);
    }
    let one = |file: &SourceFile| match unreadable.get(&file.url) {
        Some(reason) => Planned::Skipped(SkippedSource { url: file.url.clone(), reason: reason.clone() }),
        // Not by its identity: it is not consumed by this.
        None => {
            Planned::Read { file: file.clone(), note: SourceUse { id: None, ..plan::note(file) }, head: None }
        }
    };
    Ok(std::iter::once(Planned::Reshaped { note }).chain(files.iter().map(one)).collect())
}

/// The rows that come of the planned sources, and the lines that give none.
pub(super) struct Flow {
    reshaped: Reshaped,
    bad: mpsc::Receiver<Bad>,
}

impl Flow {
    /// Plans what is to be done to sources whose rows `schema` holds. Nothing is read yet.
    pub(super) async fn plan(
        run: &Run<'_>,
        reshape: &Reshape,
        planned: &mut [Planned],
        schema: SchemaRef,
        workers: &Workers,
    ) -> Result<Self> {
        // Of those that are read in the end: what was left out may be there next time.
        let id = reshape.identity(plan::to_read(planned));
        for planned in planned.iter_mut() {
            if let Planned::Reshaped { note } = planned {
                note.id = id;
            }
        }
        let (sender, bad) = mpsc::channel(WAITING);
        let planned = Arc::new(planned.to_vec());
        let rows = SourceRows::new(planned, schema, run.options, workers, run.progress, sender);
        Ok(Self { reshaped: (reshape.apply)(rows).await?, bad })
    }

    /// The schema of the rows to come.
    pub(super) fn schema(&self) -> &SchemaRef {
        &self.reshaped.schema
    }

    /// Has all rows judged, and passes on what survives. `numbers` are those of the planned sources in the session.
    pub(super) async fn judge(
        self,
        run: &Run<'_>,
        session: &mut Session,
        planned: &[Planned],
        numbers: &[u32],
    ) -> Result<()> {
        let Self { reshaped: Reshaped { mut rows, .. }, mut bad } = self;
        let at = planned.iter().position(|planned| matches!(planned, Planned::Reshaped { .. }));
        let source = at.and_then(|at| numbers.get(at)).copied();
        let source = source.ok_or_else(|| Error::Internal("there is no source for the rows".into()))?;
        loop {
            if run.progress.is_cancelled() {
                return Err(Error::Interrupted);
            }
            tokio::select! {
                biased;
                Some(lines) = bad.recv() => set_aside(run, session, planned, numbers, lines).await?,
                next = rows.next() => match next.transpose()? {
                    Some(batch) => {
                        let verdicts = session.judge(source, &batch).await?;
                        let judged = batch.num_rows() as u64;
                        run.progress.count(judged, judged - verdicts.accepted);
                        if verdicts.accepted > 0 {
                            session.write(Rows::of_batch(source, batch, verdicts)).await?;
                        }
                    }
                    None => break,
                },
            }
        }
        while let Ok(lines) = bad.try_recv() {
            set_aside(run, session, planned, numbers, lines).await?;
        }
        Ok(())
    }
}

async fn set_aside(
    run: &Run<'_>,
    session: &mut Session,
    planned: &[Planned],
    numbers: &[u32],
    (number, lines): Bad,
) -> Result<()> {
    let source = numbers.get(number).copied().unwrap_or_default();
    let url = planned.get(number).and_then(Planned::url).unwrap_or_default();
    let count = reject::bad_lines(session, source, url, &lines, run.options).await?;
    run.progress.count(count, count);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::{ingest, ingest_reshaped};
    use crate::report::{IngestReport, Progress};
    use arrow::array::{Array, AsArray, RecordBatch};
    use arrow::compute::filter_record_batch;
    use futures::{FutureExt, TryStreamExt};
    use proptest::prelude::*;
    use std::collections::HashSet;

    /// A row with this key or with none, or a line that gives no row.
    type Line = Option<Option<u8>>;

    fn text(lines: &[Line]) -> String {
        let line = |line: &Line| match line {
            Some(Some(key)) => format!("{{\"id\":\"key-{key:03}\",\"n\":{key}}}\n"),
            Some(None) => "{\"id\":null,\"n\":7}\n".to_owned(),
            None => "{\"id\":\n".to_owned(),
        };
        lines.iter().map(line).collect()
    }

    fn options() -> IngestOptions {
        IngestOptions { key: Some(vec!["id".into()]), ..IngestOptions::default() }
    }

    /// The rows as they are, of which those stay that `keep` says.
    fn sieve(text: &str, keep: fn(&RecordBatch) -> arrow::array::BooleanArray) -> Reshape {
        Reshape::new(text, move |source| {
            let rows = source.read(None).map(|rows| {
                rows.map_ok(move |batch| filter_record_batch(&batch, &keep(&batch)).unwrap()).boxed()
            });
            std::future::ready(rows.map(|rows| Reshaped { schema: Arc::clone(source.schema()), rows }))
                .boxed()
        })
    }

    fn all(batch: &RecordBatch) -> arrow::array::BooleanArray {
        vec![true; batch.num_rows()].into()
    }

    fn even(batch: &RecordBatch) -> arrow::array::BooleanArray {
        let ids = batch.column_by_name("id").unwrap().as_string::<i32>();
        (0..ids.len())
            .map(|row| Some(ids.is_valid(row) && ids.value(row).ends_with(['0', '2', '4', '6', '8'])))
            .collect()
    }

    fn counts(report: &IngestReport) -> (u64, u64, u64, u64) {
        let rows = report.rows;
        assert!(rows.is_conserved(), "{rows:?}");
        (rows.accepted, rows.duplicate, rows.replayed, rows.rejected)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn rows_that_pass_through_are_judged_as_those_of_a_file(
            files in proptest::collection::vec(proptest::collection::vec(proptest::option::weighted(0.9, proptest::option::weighted(0.9, 0u8..40)), 0..60), 1..4)
        ) {
            let mut files = files;
            files[0].push(Some(Some(200)));
            let folder = tempfile::tempdir().unwrap();
            let at = |name: &str| folder.path().join(name).display().to_string();
            std::fs::create_dir(at("in")).unwrap();
            for (number, lines) in files.iter().enumerate() {
                std::fs::write(at(&format!("in/{number}.ndjson")), text(lines)).unwrap();
            }
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            runtime.block_on(async {
                let (from, progress) = ([at("in")], Progress::default());
                let plain = ingest(&from, &at("plain"), &options(), &progress).await.unwrap();
                let same = sieve("the same", all);
                let run = |table: &str, reshape: &Reshape| {
                    let (table, reshape) = (at(table), reshape.clone());
                    let from = from.clone();
                    async move { ingest_reshaped(&from, &table, Some(&reshape), &options(), &Progress::default()).await.unwrap() }
                };
                let passed = run("passed", &same).await;
                assert_eq!(counts(&passed), counts(&plain));
                assert_eq!((passed.sources, passed.version), (plain.sources, plain.version));
                let read = passed.rows.read;
                assert_eq!(counts(&run("passed", &same).await).2, read - bad(&files));
                // Some of them only, and after them all.
                let evens = run("sieved", &sieve("even", even)).await;
                let keys = || files.iter().flatten().flatten().flatten().copied().collect::<HashSet<u8>>();
                let even_keys = keys().into_iter().filter(|key| key % 2 == 0).count() as u64;
                assert_eq!((evens.rows.accepted, evens.rows.rejected), (even_keys, bad(&files)));
                assert_eq!(run("sieved", &same).await.rows.accepted, keys().len() as u64 - even_keys);
                assert_eq!(counts(&ingest(&from, &at("sieved"), &options(), &progress).await.unwrap()).0, 0);
            });
        }
    }

    fn bad(files: &[Vec<Line>]) -> u64 {
        files.iter().flatten().filter(|line| line.is_none()).count() as u64
    }
}
