//! The same run, with the rows judged by somebody else: everything before and after that is as it is.

use futures::future::BoxFuture;

#[cfg(feature = "cluster")]
use super::ingest_at;
use crate::error::Result;
use crate::options::IngestOptions;
#[cfg(feature = "cluster")]
use crate::report::IngestReport;
use crate::report::Progress;
use crate::session::Session;
use crate::source::discover::SourceFile;

/// Whoever judges the rows of a run's sources.
pub(crate) trait Elsewhere: Sync {
    /// Judges the rows of `sources`, each with its number in `session`, whose table exists. Gives the session back with everything
    /// staged that it is to commit.
    fn judge<'a>(
        &'a self,
        session: Session,
        sources: Vec<(u32, SourceFile)>,
        options: &'a IngestOptions,
        progress: &'a Progress,
    ) -> BoxFuture<'a, Result<Session>>;
}

/// As [`ingest`](super::ingest), with the rows judged elsewhere.
#[cfg(feature = "cluster")]
pub(crate) async fn ingest_elsewhere(
    sources: &[String],
    table: &str,
    options: &IngestOptions,
    progress: &Progress,
    elsewhere: &dyn Elsewhere,
) -> Result<IngestReport> {
    ingest_at(sources, table, None, Some(elsewhere), options, progress).await
}
