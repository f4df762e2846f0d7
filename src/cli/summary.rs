//! What a person is told at the end of an ingest.

use super::render::{self, Facts};
use crate::report::IngestReport;

/// A headline, then the numbers.
pub(super) fn text(report: &IngestReport) -> String {
    let mut facts = Facts::default();
    facts.add("table", &report.table).add_some("batch", report.batch.as_ref()).add_rows(&report.rows);
    facts.add("sources", render::number(report.sources));
    facts.add("files", format!("{} ({})", render::number(report.files), render::size(report.bytes)));
    if !report.new_columns.is_empty() {
        facts.add("new columns", report.new_columns.join(", "));
    }
    for skipped in &report.skipped {
        facts.add("skipped", format!("{}: {}", skipped.url, skipped.reason));
    }
    for file in &report.quarantine {
        facts.add("quarantine", file);
    }
    let rate = (report.rows.read as f64 / report.seconds.max(1e-3)) as u64;
    // Where nothing was read there is no rate.
    let rate = match report.committed || report.dry_run {
        true => format!(" ({} rows/s)", render::number(rate)),
        false => String::new(),
    };
    facts.add("seconds", format!("{:.2}{rate}", report.seconds));
    format!("{}\n{}", headline(report), facts.text())
}

fn headline(report: &IngestReport) -> String {
    let in_version = report.version.map(|version| format!(" in version {version}")).unwrap_or_default();
    match report.version {
        _ if report.dry_run => "dry run: nothing was written".into(),
        _ if report.batch_replayed => format!("this batch was committed before{in_version}: nothing to do"),
        Some(version) if report.committed && report.created => {
            format!("created the table, committed version {version}")
        }
        Some(version) if report.committed => format!("committed version {version}"),
        Some(version) => format!("nothing to commit, the table stays at version {version}"),
        None => "nothing to commit".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::Accounting;

    #[test]
    fn the_summary_says_what_happened() {
        let rows = Accounting { read: 2000, accepted: 1500, duplicate: 500, ..Accounting::default() };
        let mut report =
            IngestReport { table: "/t".into(), version: Some(1), rows, ..IngestReport::default() };
        report.committed = true;
        report.created = true;
        report.seconds = 0.5;
        report.files = 1;
        report.bytes = 1_000_000;
        report.sources = 3;
        assert_eq!(
            text(&report),
            "created the table, committed version 1\n\
             table      /t\n\
             read       2,000\n\
             accepted   1,500 (75.0 %)\n\
             duplicate  500 (25.0 %)\n\
             sources    3\n\
             files      1 (1.0 MB)\n\
             seconds    0.50 (4,000 rows/s)\n"
        );
        report.batch_replayed = true;
        assert!(text(&report).starts_with("this batch was committed before in version 1: nothing to do\n"));
        report.dry_run = true;
        assert!(text(&report).starts_with("dry run: nothing was written\n"));
    }
}
