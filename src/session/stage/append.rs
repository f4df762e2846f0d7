//! Row groups on their way into files, in input order: what of them is made on the workers, or fetched, waits in a queue, and one at
//! a time is appended alongside whatever comes next.

use std::sync::Arc;

use futures::FutureExt;

use super::Stager;
use crate::error::Result;
use crate::ledger::name::Namer;
use crate::session::cutting::Cutting;
use crate::session::encoding::{Columns, Encoding};
use crate::session::file::{OpenFile, Stats};
use crate::sink::{EncodedRowGroup, FileLayout};
use crate::source::ahead::Ahead;
use crate::source::input::Input;
use crate::source::parquet::RowGroup;
use crate::store::Store;
use crate::workers::{Started, alongside};

/// Files that are being completed at a time.
const MAX_CLOSING: usize = 2;

/// Row groups that are fetched from a bucket at a time, besides the usual ones.
const MAX_LATE: usize = 8;

/// A row group (or a few) to be appended to the file of a folder.
pub(super) struct Job {
    pub(super) folder: String,
    pub(super) layout: FileLayout,
    pub(super) work: Work,
    pub(super) stats: Stats,
    /// What of the source is fetched ahead for it.
    pub(super) ahead: Arc<Ahead>,
}

pub(super) enum Work {
    Copy(RowGroup<Input>),
    /// With the layout to encode to if it turns out that no column can be cut.
    Cut(Cutting, FileLayout),
    Encode(Started<(Option<EncodedRowGroup>, Encoding)>),
    Columns(Vec<Columns>),
}

impl Stager {
    pub(super) async fn enqueue(&mut self, store: &Store, namer: &mut Namer, job: Job) -> Result<()> {
        self.jobs.push_back(job);
        let fetched: u64 = self.jobs.iter().map(|job| job.ahead.bytes()).sum();
        if self.jobs.iter().any(|job| job.ahead.bytes() == 0) {
            // One more is being appended.
            return self.drain_jobs(store, namer, self.workers.count() - 1).await;
        }
        // Row groups of a bucket come late: more of them may be on their way, as far as memory goes.
        let too_many =
            self.jobs.len() > MAX_LATE || fetched > (self.group_memory * self.workers.count() / 2) as u64;
        self.settle_if_done().await?;
        let is_here = self.jobs.front().is_some_and(|first| first.ahead.has_arrived());
        if (too_many || self.appending.is_none() && is_here)
            && let Some(first) = self.jobs.pop_front()
        {
            self.append(store, namer, first).await?;
        }
        Ok(())
    }

    /// Appends the oldest jobs' row groups until no more than `left` jobs are on their way.
    pub(super) async fn drain_jobs(&mut self, store: &Store, namer: &mut Namer, left: usize) -> Result<()> {
        while self.jobs.len() > left {
            let Some(job) = self.jobs.pop_front() else { break };
            self.append(store, namer, job).await?;
        }
        Ok(())
    }

    /// Begins to append a row group, once the one before it was appended.
    async fn append(&mut self, store: &Store, namer: &mut Namer, mut job: Job) -> Result<()> {
        let mut cut = None;
        if let Work::Cut(cutting, encoded) = &mut job.work {
            cut = cutting.finish(&job.layout, &self.workers).await?;
            if cut.is_none() {
                let (group, keep) = (cutting.group.clone(), cutting.keep.as_ref().clone());
                job.layout = encoded.clone();
                let encoding =
                    Encoding::of_group(group, Some(keep), encoded, &self.options, self.group_memory);
                job.work = Work::Encode(self.workers.start(move || encoding?.step()));
            }
        }
        self.settle().await?;
        self.uses += 1;
        let way = self.ways.entry(job.folder.clone()).or_default();
        way.used = self.uses;
        let mut open = way.file.take();
        if let Some(file) = open.take_if(|file| *file.writer.layout() != job.layout || file.writer.is_full())
        {
            self.close(file).await?;
        }
        let mut file = match open {
            Some(file) => file,
            None => {
                self.open_files += 1;
                OpenFile::begin(store, namer, &job.folder, &job.layout, self.key.paths()).await?
            }
        };
        let (bytes, workers) = (file.writer.written(), self.workers.clone());
        let Job { folder, work, stats, ahead, .. } = job;
        let append = async move {
            match work {
                Work::Copy(group) => {
                    ahead.arrived().await;
                    file = file.copy(group).await?;
                }
                Work::Cut(cutting, _) => {
                    file.append_cut(&cutting.group, cut.unwrap_or_default(), stats.rows).await?;
                }
                Work::Columns(groups) => {
                    for group in groups {
                        file.append(group.finish().await?).await?;
                    }
                }
                Work::Encode(mut started) => loop {
                    let (group, rest) = started.await?;
                    let Some(group) = group else { break };
                    file.append(group).await?;
                    started = workers.start(move || rest.step());
                },
            }
            file.stats.add(&stats);
            Ok(file)
        };
        self.appending = Some((folder, bytes, alongside(append).await));
        Ok(())
    }

    /// Waits until nothing is being appended.
    pub(super) async fn settle(&mut self) -> Result<()> {
        match self.appending.take() {
            Some((folder, _, appending)) => self.put_back(folder, appending.await?).await,
            None => Ok(()),
        }
    }

    /// The same if there is nothing to wait for.
    async fn settle_if_done(&mut self) -> Result<()> {
        let Some((_, _, appending)) = &mut self.appending else { return Ok(()) };
        let Some(file) = appending.now_or_never() else { return Ok(()) };
        let folder = self.appending.take().map(|(folder, ..)| folder);
        self.put_back(folder.unwrap_or_default(), file?).await
    }

    /// Puts a file back in its place, or closes it if it is full.
    async fn put_back(&mut self, folder: String, file: OpenFile) -> Result<()> {
        if file.writer.written() >= self.options.target_file_size {
            return self.close(file).await;
        }
        self.ways.entry(folder).or_default().file = Some(file);
        Ok(())
    }

    /// Has a file completed.
    pub(super) async fn close(&mut self, file: OpenFile) -> Result<()> {
        self.open_files -= 1;
        self.done_bytes += file.writer.written();
        while self.closing.len() >= MAX_CLOSING
            && let Some(oldest) = self.closing.pop_front()
        {
            self.done.push(oldest.await?);
        }
        self.closing.push_back(alongside(file.close()).await);
        Ok(())
    }
}
