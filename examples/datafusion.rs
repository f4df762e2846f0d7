//! Inside DataFusion: a table in SQL, and a DataFrame of which only first-seen rows come out.
//!
//! ```text
//! cargo run --features datafusion --example datafusion -- /tmp/lake    # INSERT: 3 new; SELECT; DataFrame: 3 first-seen rows
//! cargo run --features datafusion --example datafusion -- /tmp/lake    # INSERT: 0 new; …;      DataFrame: 0 first-seen rows
//! ```

use std::error::Error;

use datafusion::prelude::{SessionContext, col, lit};
use dedupe::operator::{DedupeDataFrame, Keep, PlanSession};
use dedupe::session::SessionOptions;
use dedupe::store::Store;
use dedupe::table::{NewTable, Table};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let lake = std::env::args().nth(1).ok_or("usage: datafusion FOLDER")?;
    // As `SessionContext::new()`, but it knows dedupe tables.
    let context = dedupe::operator::context();
    in_sql(&context, &format!("{lake}/events")).await?;
    as_data_frame(&context, &format!("{lake}/seen")).await
}

/// The table is where the rows are kept.
async fn in_sql(context: &SessionContext, at: &str) -> Result<(), Box<dyn Error>> {
    let create = format!(
        "CREATE EXTERNAL TABLE events (id BIGINT, country VARCHAR) STORED AS DEDUPE LOCATION '{at}' OPTIONS ('key' 'id')"
    );
    context.sql(&create).await?.collect().await?;
    // Whatever feeds it may deliver a row more than once, in one query or in several: it is kept once.
    let insert = "INSERT INTO events VALUES (1, 'DE'), (2, 'FR'), (1, 'DE'), (3, 'IT')";
    context.sql(insert).await?.show().await?;
    context
        .sql("SELECT country, count(*) FROM events GROUP BY country ORDER BY country")
        .await?
        .show()
        .await?;
    context
        .sql(&format!("SELECT version, accepted, duplicate FROM dedupe_log('{at}')"))
        .await?
        .show()
        .await?;
    Ok(())
}

/// The rows go elsewhere: the table remembers their keys.
async fn as_data_frame(context: &SessionContext, at: &str) -> Result<(), Box<dyn Error>> {
    let events =
        context.sql("SELECT * FROM (VALUES (1, 9.5), (2, 9.7), (1, 9.5), (4, 1.0)) AS t(id, v)").await?;
    let schema = events.schema().as_arrow().clone();
    let table = Table::open_or_create(Store::open(at, &[])?, &schema, &NewTable::keyed_by(["id"])).await?;

    let session = PlanSession::keeping(&table, SessionOptions::default(), Keep::Keys);
    // A filter that stands below the deduplication decides what is seen; one above it only what is shown.
    let first_seen = events.filter(col("v").gt(lit(0.5)))?.dedupe(&session)?.collect().await?;
    println!("{} first-seen rows", first_seen.iter().map(|batch| batch.num_rows()).sum::<usize>());
    // Here they would be handed to whoever wants them, who must be able to discard them again. Then, and only then:
    let committed = session.commit().await?;
    println!("seen for everybody since version {}", committed.version);
    Ok(())
}
