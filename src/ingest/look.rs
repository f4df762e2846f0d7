//! What the rows of text look like, found out before any is judged: from all of them, or from the beginnings.

use std::collections::VecDeque;
use std::io::Read;
use std::pin::pin;

use futures::stream::{self, Stream, StreamExt, TryStreamExt};

use super::feed::{lines_of, read_error};
use super::plan::{Head, Planned};
use crate::error::Result;
use crate::options::IngestOptions;
use crate::source::discover::{Format, SourceFile};
use crate::source::ndjson::{BLOCK_BYTES, Inference};
use crate::store::compute;
use crate::workers::Workers;

/// Blocks of a text that are its beginning.
const BEGINNING: usize = 2;

/// How much of text is looked at before its rows are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// Its beginning, where that promises to do.
    Beginnings,
    /// All of it.
    Whole,
}

/// What the rows of all text to be read look like: of all rows, or of as many of each source as the options say.
pub(super) async fn infer(
    planned: &[Planned],
    options: &IngestOptions,
    workers: &Workers,
) -> Result<Inference> {
    let each = infer_each(planned, usize::MAX, options, workers);
    each.try_fold(Inference::new(), async |mut whole, (one, _)| {
        whole.merge(one);
        Ok(whole)
    })
    .await
}

/// What the beginnings of all text to be read look like, and whether there is no more; nothing if they do not look alike. If they
/// do, most likely all of it looks like that. Columns come in the order in which they appear, and so the first of them has to have
/// them all.
pub(super) async fn beginnings(
    planned: &[Planned],
    options: &IngestOptions,
    workers: &Workers,
) -> Result<Option<(Inference, bool)>> {
    let cannot = |planned: &Planned| matches!(planned, Planned::Read { head: Some(_), .. });
    if options.sample_rows.is_some() || planned.iter().any(cannot) {
        return Ok(None);
    }
    let mut each = pin!(infer_each(planned, BEGINNING, options, workers));
    let Some((first, mut is_whole)) = each.try_next().await? else { return Ok(None) };
    let mut all = first.clone();
    while let Some((one, one_is_whole)) = each.try_next().await? {
        all.merge(one);
        is_whole &= one_is_whole;
    }
    let alike = || !first.is_empty() && first.clone().finish().ok() == all.clone().finish().ok();
    Ok((is_whole || alike()).then_some((all, is_whole)))
}

/// What each text to be read looks like, up to so many blocks, and whether that is all of it.
fn infer_each(
    planned: &[Planned],
    blocks: usize,
    options: &IngestOptions,
    workers: &Workers,
) -> impl Stream<Item = Result<(Inference, bool)>> {
    let (max_line, sample) = (options.max_line, options.sample_rows.unwrap_or(u64::MAX));
    let text = planned.iter().filter_map(|planned| match planned {
        Planned::Read { file, head, .. } if file.format == Format::Ndjson => {
            Some((file.clone(), head.clone()))
        }
        _ => None,
    });
    let text: Vec<_> = text.collect();
    // With fewer sources than workers, blocks of one are looked at side by side.
    let at_once = workers.count().div_ceil(text.len().max(1));
    let files = text.len().min(workers.count()).max(1);
    let one = move |(file, head)| {
        let most = Most { sample, blocks, line: max_line };
        infer_one(file, head, most, workers.clone(), at_once)
    };
    stream::iter(text).map(one).buffered(files)
}

/// How much of a text is looked at: rows, and blocks, and bytes of a line.
struct Most {
    sample: u64,
    blocks: usize,
    line: usize,
}

/// What the beginning of a text looks like, and whether there is no more. So many blocks of it are looked at at a time.
async fn infer_one(
    file: SourceFile,
    head: Option<Head>,
    most: Most,
    workers: Workers,
    at_once: usize,
) -> Result<(Inference, bool)> {
    let Most { sample, blocks, line: max_line } = most;
    let (source, url) = (file.clone(), file.url.clone());
    let mut lines = compute(move || {
        let reader: Box<dyn Read + Send> = match head {
            Some(head) => head.sample(),
            None => source.open()?.reader()?,
        };
        lines_of(&source.url, reader, max_line)
    })
    .await?;
    let mut whole = Inference::new();
    let mut under_way = VecDeque::with_capacity(at_once);
    let (mut left, mut taken, mut is_whole) = (sample, 0, false);
    while left > 0 && taken < blocks {
        taken += 1;
        let url = url.clone();
        let (block, rest) = compute(move || {
            let block = lines.next_block().map_err(|e| read_error(&url, &e))?;
            let block = match (block, usize::try_from(left)) {
                (Some(block), Ok(left)) if sample < u64::MAX => block.split(left).into_iter().next(),
                (block, _) => block,
            };
            Ok((block, lines))
        })
        .await?;
        lines = rest;
        let Some(block) = block else {
            is_whole = true;
            break;
        };
        if sample < u64::MAX {
            left = left.saturating_sub(block.lines().count() as u64);
        }
        // A long line takes many times its length while it is looked at: no other is then.
        let others = if block.bytes.len() > 2 * BLOCK_BYTES { 0 } else { at_once - 1 };
        while under_way.len() > others
            && let Some(first) = under_way.pop_front()
        {
            whole.merge(first.await?);
        }
        // Alone, a block is looked at with all that is known of those before it.
        let mut known = if others == 0 { std::mem::take(&mut whole) } else { Inference::new() };
        under_way.push_back(workers.start(move || {
            known.observe(&block);
            Ok(known)
        }));
    }
    for rest in under_way {
        whole.merge(rest.await?);
    }
    Ok((whole, is_whole))
}
