//! What a run is going to do, found out before anything is written: which sources are new, and which schema their
//! rows and the table's have in common.

use std::collections::BTreeMap;
use std::io::{Cursor, Read};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use arrow_schema::{DataType, FieldRef, Fields, Schema, SchemaRef};
use futures::stream::{self, StreamExt};
use tracing::warn;
use xxhash_rust::xxh3::xxh3_128;

use super::feed::{lines_of, read_error};
use super::look::{Look, beginnings, infer};
use super::reshape::Reshape;
use crate::error::{Error, Result};
use crate::ledger::State;
use crate::ledger::entry::{Batch, SkippedSource, SourceUse};
use crate::options::{IngestOptions, OnBadFile};
use crate::schema;
use crate::sink::Partition;
use crate::source::discover::{Format, SourceFile};
use crate::source::input::Input;
use crate::source::ndjson::{Decoder, Inference, json_field};
use crate::source::parquet::ParquetFile;
use crate::store::compute;
use crate::token::resolve;
use crate::verdict::Verdict;
use crate::workers::Workers;

/// Standard input is looked at this far to find a schema, in bytes: it cannot be read twice.
const STDIN_SAMPLE: u64 = 16 << 20;

/// How many footers are fetched at a time, where answers are slow. (The workers read them, as many at a time as there are.)
const FOOTERS_AT_ONCE: usize = 16;

/// How standard input is called.
pub(super) const STDIN: &str = "-";

/// What a run does with one source.
#[derive(Debug, Clone)]
pub(super) enum Planned {
    /// Its rows are read and judged.
    Read {
        file: SourceFile,
        note: SourceUse,
        /// What was read of it already, if it cannot be read again.
        head: Option<Head>,
    },
    /// What the sources that are read become together: these rows are judged, and not theirs.
    Reshaped { note: SourceUse },
    /// An earlier version consumed it: its rows are counted, not read.
    Recognised { note: SourceUse },
    /// It could not be read and is left out.
    Skipped(SkippedSource),
}

impl Planned {
    /// Where it comes from.
    pub(super) fn url(&self) -> Option<&str> {
        match self {
            Self::Read { note, .. } | Self::Reshaped { note } | Self::Recognised { note } => Some(&note.url),
            Self::Skipped(skipped) => Some(&skipped.url),
        }
    }
}

/// The beginning of a source that can be read only once, and the reader that stands behind it.
#[derive(Clone)]
pub(super) struct Head {
    bytes: Arc<[u8]>,
    rest: Arc<Mutex<Option<Box<dyn Read + Send>>>>,
}

impl std::fmt::Debug for Head {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Head({} bytes)", self.bytes.len())
    }
}

impl Head {
    /// The beginning only, as often as one likes.
    pub(super) fn sample(&self) -> Box<dyn Read + Send> {
        Box::new(Cursor::new(Arc::clone(&self.bytes)))
    }

    /// Whether [`Self::whole`] gives the whole source: it was not asked yet, or the beginning is all there is.
    pub(super) fn is_readable(&self) -> bool {
        let unread = || self.rest.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        (self.bytes.len() as u64) < STDIN_SAMPLE || unread()
    }

    /// The whole source: as often as one likes if it is short, and once otherwise.
    pub(super) fn whole(&self) -> Result<Box<dyn Read + Send>> {
        if (self.bytes.len() as u64) < STDIN_SAMPLE {
            return Ok(self.sample());
        }
        let rest = self.rest.lock().unwrap_or_else(PoisonError::into_inner).take();
        let rest =
            rest.ok_or_else(|| Error::input(STDIN, "it can be read only once; save it to a file first"))?;
        Ok(Box::new(self.sample().chain(rest)))
    }
}

/// The identity of a source, as the ledger remembers it.
pub(super) fn identity(file: &SourceFile) -> Option<u128> {
    file.identity().map(|text| xxh3_128(text.as_bytes()))
}

/// What the ledger says of a source, before any of its rows is judged.
pub(super) fn note(file: &SourceFile) -> SourceUse {
    SourceUse {
        url: file.url.clone(),
        size: file.size,
        etag: file.etag.clone(),
        modified: file.modified.clone(),
        id: identity(file),
        ..SourceUse::default()
    }
}

/// The batch a run stands for: its id, and a digest over what its sources are, and what is done to them.
pub(super) fn batch(id: &str, files: &[SourceFile], reshape: Option<&Reshape>) -> Batch {
    let mut text: Vec<String> =
        files.iter().map(|file| file.identity().unwrap_or_else(|| file.url.clone())).collect();
    text.extend(reshape.map(|reshape| reshape.text().to_owned()));
    Batch { id: id.to_owned(), digest: xxh3_128(text.join("\n").as_bytes()) }
}

/// Decides for each source whether it is read; they were looked up. `unreadable` are those that an earlier attempt failed on.
pub(super) fn sort_out(
    files: &[SourceFile],
    state: Option<&State>,
    unreadable: &BTreeMap<String, String>,
    options: &IngestOptions,
) -> Result<Vec<Planned>> {
    let one = |file: &SourceFile| {
        if let Some(reason) = unreadable.get(&file.url) {
            return Ok(Planned::Skipped(SkippedSource { url: file.url.clone(), reason: reason.clone() }));
        }
        let mut note = note(file);
        let seen = match (note.id, state) {
            (Some(id), Some(state)) => state.source(id)?,
            _ => None,
        };
        note.replay_of = seen.map(|seen| seen.version);
        Ok(match seen {
            Some(seen) if !options.reread => {
                note.rows.count(Verdict::Replayed, seen.rows);
                Planned::Recognised { note }
            }
            _ => Planned::Read { file: file.clone(), note, head: None },
        })
    };
    files.iter().map(one).collect()
}

/// What the sources of a run have in common.
pub(super) struct Common {
    /// The schema that all rows fit.
    pub(super) schema: SchemaRef,
    /// What the beginnings of text made known, if no more was looked at: rows are to be held to it when they are read.
    pub(super) known: Option<Arc<Inference>>,
    /// The rows of Parquet sources.
    pub(super) rows: u64,
}

/// The schema that all rows to be read fit: the table's (or the one given), widened by what the Parquet sources
/// have, and extended by what is found in text where there was no schema to begin with. Parquet sources that cannot
/// be opened are left out here, all at once, if the run is to do without them.
///
/// Of text it may be enough to look at the beginnings.
pub(super) async fn contract(
    planned: &mut [Planned],
    given: Option<&Schema>,
    look: Look,
    options: &IngestOptions,
    workers: &Workers,
) -> Result<Common> {
    let (mut contract, mut rows) = (given.cloned(), 0);
    let parquet = planned.iter().enumerate().filter_map(|(at, planned)| match planned {
        Planned::Read { file, .. } if file.format == Format::Parquet => Some((at, file.clone())),
        _ => None,
    });
    let parquet: Vec<(usize, SourceFile)> = parquet.collect();
    let starter = workers.clone();
    let open = move |(at, source): (usize, SourceFile)| {
        let (file, input) = (source.clone(), source.open());
        let ahead = Arc::new(input.as_ref().map(Input::fetch_end_ahead).unwrap_or_default());
        let until_read = Arc::clone(&ahead);
        let ready = async move { ahead.arrived().await };
        let schema = starter.start_after(ready, move || {
            let file = ParquetFile::open(input?, &source.url)?;
            drop(until_read);
            Ok((Arc::clone(file.schema()), file.num_rows()))
        });
        async move { (at, file, schema.await) }
    };
    let mut opened = stream::iter(parquet).map(open).buffered(FOOTERS_AT_ONCE.max(workers.count()));
    while let Some((at, file, found)) = opened.next().await {
        match found {
            Ok((found, its_rows)) => {
                contract = Some(widened(contract, &found, &file)?);
                rows = its_rows.saturating_add(rows);
            }
            Err(Error::Input { source_url: url, reason }) if options.on_bad_file == OnBadFile::Skip => {
                warn!("leaving out {url}: {reason}");
                if let Some(planned) = planned.get_mut(at) {
                    *planned = Planned::Skipped(SkippedSource { url, reason });
                }
            }
            Err(error) => return Err(error),
        }
    }
    if given.is_some() || !to_read(planned).any(|file| file.format == Format::Ndjson) {
        let contract = contract.map(Arc::new).ok_or_else(|| nothing_readable(planned))?;
        return Ok(Common { schema: contract, known: None, rows });
    }
    let schema_of = |found: Inference| match &contract {
        Some(contract) => found.widen_loosely(contract),
        None => found.finish(),
    };
    let begun = match look {
        Look::Beginnings => beginnings(planned, options, workers).await?,
        Look::Whole => None,
    };
    let begun = match begun {
        Some((all, true)) => Some((schema_of(all)?, None)),
        Some((known, false)) => {
            let schema = schema_of(known.clone())?;
            // What a run is told about may come late.
            let partitions = Partition::parse_all(options.partition_by.as_deref().unwrap_or_default())?;
            let key = options.key.iter().flatten().map(String::as_str);
            let mut told = key.chain(partitions.iter().map(Partition::column));
            let all_there = told.all(|name| resolve(schema.fields(), name).is_some());
            all_there.then(|| (schema, Some(Arc::new(known))))
        }
        None => None,
    };
    let (whole, known) = match begun {
        Some(begun) => begun,
        None => (schema_of(infer(planned, options, workers).await?)?, None),
    };
    if whole.fields().is_empty() {
        return Err(no_schema(planned, options).await?);
    }
    let fields = (options.key.iter().flatten()).fold(whole.fields().clone(), |fields, key| {
        match resolve(&fields, key) {
            Some(path) if from_text(contract.as_ref(), &path) => whole_as_json(&fields, &path),
            _ => fields,
        }
    });
    let schema = Arc::new(Schema::new_with_metadata(fields, whole.metadata().clone()));
    Ok(Common { schema, known, rows })
}

/// The contract, widened by what all text to be read has beyond it: for those who cannot widen it once rows are read.
pub(super) async fn look_ahead(
    planned: &[Planned],
    contract: &SchemaRef,
    options: &IngestOptions,
    workers: &Workers,
) -> Result<SchemaRef> {
    if !to_read(planned).any(|file| file.format == Format::Ndjson) {
        return Ok(Arc::clone(contract));
    }
    Ok(Arc::new(infer(planned, options, workers).await?.widen_loosely(contract)?))
}

fn widened(contract: Option<Schema>, found: &SchemaRef, file: &SourceFile) -> Result<Schema> {
    let Some(contract) = contract else { return Ok(found.as_ref().clone()) };
    schema::widen(&contract, found)
        .map_err(|reason| Error::input(&file.url, format!("its schema does not fit the table's: {reason}")))
}

/// Why there is nothing to make a table of.
fn nothing_readable(planned: &[Planned]) -> Error {
    let first = planned.iter().find_map(|planned| match planned {
        Planned::Skipped(skipped) => Some(skipped),
        _ => None,
    });
    match first {
        Some(skipped) => Error::input(
            &skipped.url,
            format!(
                "{} (and no other source can be read, so there is nothing to make a table of)",
                skipped.reason
            ),
        ),
        None => Error::Internal("a run without sources needs no schema".into()),
    }
}

/// Why no schema could be inferred: the first text source has no rows, or none that can be read.
async fn no_schema(planned: &[Planned], options: &IngestOptions) -> Result<Error> {
    let text = planned.iter().find_map(|planned| match planned {
        Planned::Read { file, head, .. } if file.format == Format::Ndjson => {
            Some((file.clone(), head.clone()))
        }
        _ => None,
    });
    let Some((file, head)) = text else {
        return Ok(Error::Internal("there is no text to infer from".into()));
    };
    let (url, max_line) = (file.url.clone(), options.max_line);
    let first = compute(move || {
        let reader: Box<dyn Read + Send> = match head {
            Some(head) => head.sample(),
            None => file.open()?.reader()?,
        };
        let block =
            lines_of(&file.url, reader, max_line)?.next_block().map_err(|e| read_error(&file.url, &e))?;
        let Some(block) = block else { return Ok(None) };
        let decoded = Decoder::new(Arc::new(Schema::empty()))?.decode(&block)?;
        Ok(decoded.bad.into_iter().next())
    });
    Ok(Error::input(
        &url,
        match first.await? {
            Some(bad) => format!(
                "it has no row that can be read, so there is no schema to make a table of: line {}: {}. NDJSON is \
                 one JSON object a line",
                bad.line, bad.reason
            ),
            None => "it has no rows, so there is no schema to make a table of; give one with --schema".into(),
        },
    ))
}

/// Fails if a local Parquet source was changed since it was found. (In a bucket every read names the version that
/// was found, and text is read once, from its beginning to its end.)
pub(super) async fn check_unchanged(planned: &[Planned]) -> Result<()> {
    let files: Vec<SourceFile> = to_read(planned)
        .filter(|file| file.format == Format::Parquet && Path::new(&file.url).is_absolute())
        .cloned()
        .collect();
    compute(move || {
        for file in files {
            let now = SourceFile::on_disk(Path::new(&file.url), Some(Format::Parquet))?;
            if now.identity() != file.identity() {
                return Err(Error::input(&file.url, "it was changed while it was read; run again"));
            }
        }
        Ok(())
    })
    .await
}

/// Whether the column at `path` was found in text only.
fn from_text(parquet: Option<&Schema>, path: &[String]) -> bool {
    path.first().is_some_and(|root| parquet.is_none_or(|schema| schema.column_with_name(root).is_none()))
}

/// A key that is an object, or has objects in it, is kept as JSON text: as a struct, a member that is null and one
/// that is absent would be the same, and two different objects one key.
fn whole_as_json(fields: &Fields, path: &[String]) -> Fields {
    let Some((name, rest)) = path.split_first() else { return fields.clone() };
    let replace = |field: &FieldRef| match field.data_type() {
        _ if field.name() != name => Arc::clone(field),
        DataType::Struct(members) if !rest.is_empty() => {
            let members = whole_as_json(members, rest);
            Arc::new(field.as_ref().clone().with_data_type(DataType::Struct(members)))
        }
        kind if holds_objects(kind) => Arc::new(json_field(name)),
        _ => Arc::clone(field),
    };
    fields.iter().map(replace).collect()
}

/// Standard input cannot be read twice: its beginning is kept, to be looked at and then to be read. `kept` is what an
/// earlier attempt has kept of it.
pub(super) async fn keep_head(planned: &mut [Planned], kept: &mut Option<Head>) -> Result<()> {
    for planned in planned {
        let Planned::Read { file, head, .. } = planned else { continue };
        if file.url != STDIN {
            continue;
        }
        if kept.is_none() {
            let source = file.clone();
            let begun = compute(move || {
                let mut bytes = Vec::new();
                let mut reader = source.open()?.reader()?;
                let read = reader.by_ref().take(STDIN_SAMPLE).read_to_end(&mut bytes);
                read.map_err(|e| read_error(&source.url, &e))?;
                Ok(Head { bytes: bytes.into(), rest: Arc::new(Mutex::new(Some(reader))) })
            });
            *kept = Some(begun.await?);
        }
        head.clone_from(kept);
    }
    Ok(())
}

fn holds_objects(kind: &DataType) -> bool {
    match kind {
        DataType::Struct(_) => true,
        DataType::List(item) => holds_objects(item.data_type()),
        _ => false,
    }
}

/// The sources that are read.
pub(super) fn to_read(planned: &[Planned]) -> impl Iterator<Item = &SourceFile> {
    planned.iter().filter_map(|planned| match planned {
        Planned::Read { file, .. } => Some(file),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_standard_input_can_be_read_again_and_long_one_once() {
        let head = |bytes: u64, rest: &'static str| Head {
            bytes: vec![b'x'; bytes as usize].into(),
            rest: Arc::new(Mutex::new(Some(Box::new(rest.as_bytes())))),
        };
        let read = |head: &Head| {
            let mut text = Vec::new();
            head.whole().map(|mut whole| whole.read_to_end(&mut text).unwrap())
        };
        let short = head(5, "");
        assert_eq!((read(&short).unwrap(), read(&short).unwrap(), short.is_readable()), (5, 5, true));
        let long = head(STDIN_SAMPLE, "rest");
        assert!(long.is_readable());
        assert_eq!(read(&long).unwrap() as u64, STDIN_SAMPLE + 4);
        assert!(!long.is_readable() && read(&long).is_err());
    }
}
