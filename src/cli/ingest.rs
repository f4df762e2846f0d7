//! `dedupe ingest SOURCE… --into TABLE`: the main job.

use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use arrow_schema::Schema;

use super::bar::Bar;
use super::exit::Exit;
use super::out::{Out, Stop};
use super::values::{self, Names};
use super::{Context, summary};
use crate::error::{Error, Result};
use crate::ingest::{Reshape, ingest_reshaped};
#[cfg(feature = "datafusion")]
use crate::options::MIN_MEMORY;
use crate::options::{IngestOptions, OnBadFile, OnBadRow, Risk};
use crate::policy::NullKey;
use crate::sink::CompressionChoice;
use crate::source::discover::Format;
use crate::source::ndjson::schema_of_file;
use crate::token::TokenHash;

/// Schema files are small; anything larger is not one.
const MAX_SCHEMA_FILE: u64 = 16 << 20;

/// How long a run that is to stop may take to cancel its job on a cluster.
#[cfg(feature = "ballista")]
const CANCEL: Duration = Duration::from_secs(5);

#[cfg(not(feature = "datafusion"))]
const SQL: &str = "";
#[cfg(feature = "datafusion")]
const SQL: &str = "\n  dedupe ingest raw/ --into /lake/errors --key id --sql \"SELECT id, at, msg FROM source WHERE level = 'error'\"";

/// What is shown below the options.
fn examples() -> String {
    format!(
        "\
Examples:
  dedupe ingest events/ --into /lake/events --key event_id
  dedupe ingest 's3://raw/2026-01-*/*.json.gz' --into s3://lake/events --key user.id,ts
  kcat -C -e -t events | dedupe ingest - --into /lake/events --key id --batch-id 2026-01-31T10
  dedupe ingest new.parquet --into /lake/events --dry-run --output json{SQL}

The first ingest creates the table and fixes its key; later ones read the key from the table. Rows that were kept \
out are listed by `dedupe quarantine TABLE`."
    )
}

/// Adds files to a table.
#[derive(Debug, clap::Args)]
#[command(after_help = examples())]
pub(super) struct Args {
    /// Files, directories (searched whole), globs, object-store URLs, or - for NDJSON on standard input.
    ///
    /// Parquet and NDJSON (.ndjson .jsonl .json), the latter also .gz and .zst. Sources are read in the order
    /// given, and sorted within a directory or glob; "first" of two rows with one key means first in that order.
    #[arg(value_name = "SOURCE", required = true)]
    sources: Vec<String>,
    /// The table: a path or URL. Created if it does not exist.
    #[arg(long, value_name = "TABLE")]
    into: String,
    /// Columns that identify one event; needed for a new table. Struct members as a.b, a comma in a name as \,
    #[arg(long, value_name = "COL[,COL]", help_heading = "Table")]
    key: Vec<Names>,
    /// Token function of a new table [default: siphash-2-4-128]
    #[arg(long, value_enum, value_name = "NAME", help_heading = "Table")]
    token_hash: Option<TokenHash>,
    /// Folders of a new table's data, outermost first: a column, or date(COLUMN).
    #[arg(long, value_name = "COL[,COL]", help_heading = "Table")]
    partition_by: Vec<Names>,
    /// Schema of a new table, instead of the inferred one: {"fields": [{"name": "id", "type": "int64"}, …]}.
    ///
    /// Types: bool, int8 to int64, uint8 to uint64, float32, float64, decimal(precision,scale), text, binary, date,
    /// time(unit), timestamp(unit), timestamp(unit,zone), json, {"list": type}, {"struct": [field, …]}, {"map": type};
    /// units are s, ms, us, ns. `dedupe status --output json` prints a table's own under "schema".
    #[arg(long, value_name = "FILE", help_heading = "Table")]
    schema: Option<PathBuf>,
    /// Infer the schema from the first N rows of each NDJSON source [default: from all rows]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), help_heading = "Table")]
    sample_rows: Option<u64>,
    /// What becomes of rows whose key columns are all null [default: as the table says; quarantine for a new one]
    #[arg(long, value_enum, value_name = "WHAT", help_heading = "Rows and sources")]
    null_key: Option<NullKey>,
    /// What becomes of a row that is malformed or does not fit the schema.
    #[arg(long, value_enum, value_name = "WHAT", default_value_t, help_heading = "Rows and sources")]
    on_bad_row: OnBadRow,
    /// What becomes of a source that cannot be read.
    #[arg(long, value_enum, value_name = "WHAT", default_value_t, help_heading = "Rows and sources")]
    on_bad_file: OnBadFile,
    /// Read every source as this format, whatever its name.
    #[arg(long, value_enum, value_name = "FORMAT", help_heading = "Rows and sources")]
    format: Option<Format>,
    /// Judge the rows of sources that were consumed before one by one, instead of recognising the source.
    #[arg(long, help_heading = "Rows and sources")]
    reread: bool,
    /// Longest NDJSON line that is read; a longer one is kept out as a bad row.
    #[arg(long, value_name = "SIZE", default_value = "16MiB", value_parser = values::line_length, help_heading = "Rows and sources")]
    max_line: usize,
    /// Create the table even on a store that does not keep conditional writes.
    ///
    /// Such a table is marked for good, and every run that ingests into it says so: nothing protects it from a second
    /// writer, nor from a request of a killed one that the store carries out late. Ignored where the store keeps its
    /// promises (see `dedupe doctor`) or the table exists.
    #[arg(long, value_enum, value_name = "RISK", help_heading = "Table")]
    i_know_the_risk: Option<Risk>,
    /// Ingest what this query makes of the sources, which are the table source in it, instead of their rows.
    ///
    /// All of SQL that only reads: filters, expressions, joins, aggregates. Of two rows with one key the first of the result
    /// is kept. The same query over the same sources is recognised and not run again, over any others its rows are
    /// judged one by one. Names of columns that are not in lower case are written in double quotes.
    #[cfg(feature = "datafusion")]
    #[arg(long, value_name = "QUERY", conflicts_with = "schema", value_parser = clap::builder::NonEmptyStringValueParser::new(), help_heading = "Rows and sources")]
    sql: Option<String>,
    /// Make the run idempotent: a second run with this id does nothing and returns the first one's outcome.
    ///
    /// The id stands for the sources it was first used with; with others it is refused. Of standard input only the id is
    /// known before it is read: a second run with the same id does not read it, whatever it holds.
    #[arg(long, value_name = "ID", value_parser = clap::builder::NonEmptyStringValueParser::new(), help_heading = "Run")]
    batch_id: Option<String>,
    /// Judge every row, write nothing, and say what would happen.
    #[arg(long, help_heading = "Run")]
    dry_run: bool,
    /// Memory for input, keys, the index and writers together [default: a quarter of the machine's, at most 1GiB]
    #[arg(long, value_name = "SIZE", value_parser = values::memory, help_heading = "Run")]
    memory: Option<u64>,
    /// Keep the parts of the index that were read from a bucket in this folder on the local disk, for the next run.
    ///
    /// Any number of runs, on any tables, may share it. It is never needed: what is absent or damaged there is fetched anew.
    /// Tables on a local disk do without.
    #[arg(long, value_name = "DIR", help_heading = "Run")]
    cache_dir: Option<PathBuf>,
    /// Disk that the cache folder may take; beyond it, the parts of runs that were used least recently go.
    #[arg(long, value_name = "SIZE", default_value = "4GiB", value_parser = values::size, help_heading = "Run")]
    cache_size: u64,
    /// Threads that decode, hash and encode [default: one a processor]
    #[arg(long, value_name = "N", help_heading = "Run")]
    threads: Option<NonZeroUsize>,
    /// Have the executors of a Ballista cluster read the sources and judge their rows, instead of this process.
    ///
    /// The URL is that of its scheduler, http://HOST:PORT; sources and table must be where every executor finds them. This
    /// process finds the sources, and makes the one commit. --memory is then that of each task, and --threads has no effect there.
    #[cfg(feature = "ballista")]
    #[arg(long, value_name = "URL", conflicts_with_all = ["dry_run", "sql"], help_heading = "Cluster")]
    cluster: Option<String>,
    /// How many tasks read, and how many then judge.
    #[cfg(feature = "ballista")]
    #[arg(long, value_name = "N", default_value = "16", requires = "cluster", help_heading = "Cluster")]
    cluster_tasks: NonZeroUsize,
    /// Close data files when they reach this size.
    #[arg(long, value_name = "SIZE", default_value = "256MB", value_parser = values::size, help_heading = "Data files")]
    target_file_size: u64,
    /// Rows in a row group, where row groups are not copied as they are.
    #[arg(long, value_name = "N", default_value = "1048576", help_heading = "Data files")]
    row_group_rows: NonZeroUsize,
    /// Codec of data that is encoded anew: zstd, zstd(1..22), snappy, gzip(0..9), lz4, brotli(0..11), none [default: the
    /// source's, zstd for NDJSON]
    #[arg(long, value_name = "CODEC", value_parser = compression, help_heading = "Data files")]
    compression: Option<String>,
}

pub(super) async fn run(args: Args, context: &Context, out: &mut Out) -> Result<Exit, Stop> {
    let (sources, table) = (args.sources.clone(), args.into.clone());
    #[cfg(feature = "ballista")]
    let cluster = args.cluster.clone().map(|url| (url, args.cluster_tasks.get()));
    let (reshape, options) = reshape(args, context)?;
    let bar = Bar::follow(&context.progress, &context.screen);
    let run = async {
        #[cfg(feature = "ballista")]
        if let Some((url, tasks)) = &cluster {
            let progress = &context.progress;
            return crate::cluster::ballista::ingest(url, *tasks, &sources, &table, &options, progress).await;
        }
        ingest_reshaped(&sources, &table, reshape.as_ref(), &options, &context.progress).await
    };
    let grace = Duration::ZERO;
    #[cfg(feature = "ballista")]
    let grace = if cluster.is_some() { CANCEL } else { grace };
    let report = context.interrupts.stop_before_commit(&context.progress, grace, run).await;
    drop(bar);
    let report = report?;
    out.reply(&report, || summary::text(&report))?;
    Ok(Exit::Done)
}

/// What is made of the rows before they are ingested, and the options. A query gets half of the memory.
fn reshape(args: Args, context: &Context) -> Result<(Option<Reshape>, IngestOptions)> {
    #[cfg(feature = "datafusion")]
    if let Some(sql) = args.sql.clone() {
        let mut options = options(args, context.store_options.clone())?;
        let half = options.memory / 2;
        options.memory = (options.memory - half).max(MIN_MEMORY);
        return Ok((Some(crate::operator::query(&sql, half)), options));
    }
    Ok((None, options(args, context.store_options.clone())?))
}

fn options(args: Args, store_options: Vec<(String, String)>) -> Result<IngestOptions> {
    let standard = IngestOptions::default();
    Ok(IngestOptions {
        key: Names::join(args.key),
        token_hash: args.token_hash,
        format: args.format,
        batch_id: args.batch_id,
        reread: args.reread,
        null_key: args.null_key,
        on_bad_row: args.on_bad_row,
        on_bad_file: args.on_bad_file,
        schema: args.schema.as_deref().map(read_schema).transpose()?,
        sample_rows: args.sample_rows,
        partition_by: Names::join(args.partition_by),
        target_file_size: args.target_file_size,
        row_group_rows: args.row_group_rows.get(),
        compression: args.compression,
        memory: args.memory.unwrap_or(standard.memory),
        threads: args.threads.unwrap_or(standard.threads),
        dry_run: args.dry_run,
        accepted_risk: args.i_know_the_risk,
        store_options,
        max_line: args.max_line,
        cache_dir: args.cache_dir,
        cache_size: args.cache_size,
    })
}

/// Refuses an unknown codec before anything is read.
fn compression(text: &str) -> Result<String> {
    text.parse::<CompressionChoice>().map(|_| text.to_owned())
}

fn read_schema(path: &Path) -> Result<Schema> {
    let read = || match std::fs::metadata(path)?.len() {
        0..=MAX_SCHEMA_FILE => std::fs::read_to_string(path),
        _ => Err(io::Error::other("it is too large for a schema file")),
    };
    let text = read().map_err(|e| Error::store("read", path.display().to_string(), e))?;
    schema_of_file(&text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::FromArgMatches;

    fn parsed(line: &str) -> IngestOptions {
        let matches = super::super::command().try_get_matches_from(line.split(' ')).unwrap();
        match super::super::args::Cli::from_arg_matches(&matches).unwrap().command {
            super::super::args::Command::Ingest(args) => options(*args, Vec::new()).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn without_flags_the_options_are_the_librarys_defaults() {
        let (typed, standard) = (parsed("dedupe ingest a.parquet --into /t"), IngestOptions::default());
        assert_eq!(format!("{typed:?}"), format!("{standard:?}"));
    }

    #[test]
    fn every_flag_reaches_its_option() {
        let options = parsed(
            "dedupe ingest - b --into /t --key a,b --key c --token-hash xxh3-128 --format jsonl --batch-id x --reread \
             --null-key keep --on-bad-row fail --on-bad-file skip --sample-rows 9 --partition-by date(ts),country \
             --target-file-size 1MiB --row-group-rows 10 --compression snappy --memory 64MiB --threads 3 --dry-run \
             --max-line 1KiB --i-know-the-risk single-writer --cache-dir /c --cache-size 1GiB",
        );
        assert_eq!(options.key.unwrap(), ["a", "b", "c"]);
        assert_eq!(options.token_hash, Some(TokenHash::Xxh3));
        assert_eq!(options.format, Some(Format::Ndjson));
        assert_eq!(options.batch_id.as_deref(), Some("x"));
        assert!(options.reread && options.dry_run);
        assert_eq!(options.null_key, Some(NullKey::Keep));
        assert_eq!(options.accepted_risk, Some(Risk::SingleWriter));
        assert_eq!((options.on_bad_row, options.on_bad_file), (OnBadRow::Fail, OnBadFile::Skip));
        assert_eq!(options.sample_rows, Some(9));
        assert_eq!(options.partition_by.unwrap(), ["date(ts)", "country"]);
        assert_eq!((options.target_file_size, options.row_group_rows), (1 << 20, 10));
        assert_eq!(options.compression.as_deref(), Some("snappy"));
        assert_eq!((options.memory, options.threads.get(), options.max_line), (64 << 20, 3, 1024));
        assert_eq!((options.cache_dir.as_deref(), options.cache_size), (Some(Path::new("/c")), 1 << 30));
    }
}
