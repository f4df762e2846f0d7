//! A line that nests fifty objects once gave a schema, and so a manifest, that no JSON parser would read back: the
//! commit succeeded, and the table could never be opened again.

use crate::table;
use dedupe::options::MIB;

#[test]
fn what_is_deeper_than_a_schema_should_be_is_kept_as_json_text() {
    let folder = tempfile::tempdir().unwrap();
    let table = folder.path().join("table");
    for (run, depth) in [(0, 3), (1, 50), (2, 120)] {
        let source = folder.path().join(format!("{run}.ndjson"));
        let nested = format!("{}{run}{}", "{\"a\":".repeat(depth), "}".repeat(depth));
        let line = format!("{{\"id\":\"{run}\",\"n\":{run},\"column_{run}\":{nested}}}\n");
        std::fs::write(&source, line).unwrap();
        let report = table::run(&table, &[source], &table::options(64 * MIB, 2)).unwrap();
        assert_eq!(report.rows.accepted, 1, "{depth} levels");
        assert_eq!(table::problems(&table), Vec::<String>::new(), "{depth} levels");
    }
    assert_eq!(table::rows(&table).len(), 3);
}
