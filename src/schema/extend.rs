//! A contract takes up columns it lacks, without touching those it has.

use std::sync::Arc;

use arrow_schema::{DataType, Field, FieldRef, Fields, Schema};

/// `contract` with the columns of `found` that it lacks, nullable, after its own; likewise the members of structs,
/// also within lists. A column that both have stays as the contract says, whatever was found: rows that do not fit
/// it are refused one by one.
pub fn extend(contract: &Schema, found: &Schema) -> Schema {
    let fields = extend_fields(contract.fields(), found.fields());
    Schema::new_with_metadata(fields, contract.metadata().clone())
}

fn extend_fields(contract: &Fields, found: &Fields) -> Fields {
    let known = contract.iter().map(|field| match found.find(field.name()) {
        Some((_, other)) => extend_field(field, other),
        None => Arc::clone(field),
    });
    let new = found.iter().filter(|field| contract.find(field.name()).is_none());
    known.chain(new.map(|field| Arc::new(field.as_ref().clone().with_nullable(true)))).collect()
}

fn extend_field(field: &FieldRef, found: &Field) -> FieldRef {
    let wider = match (field.data_type(), found.data_type()) {
        (DataType::Struct(ours), DataType::Struct(theirs)) => DataType::Struct(extend_fields(ours, theirs)),
        (DataType::List(ours), DataType::List(theirs)) => DataType::List(extend_field(ours, theirs)),
        _ => return Arc::clone(field),
    };
    Arc::new(field.as_ref().clone().with_data_type(wider))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(fields: Vec<Field>) -> Schema {
        Schema::new(fields)
    }

    fn record(name: &str, members: Vec<Field>) -> Field {
        Field::new(name, DataType::Struct(members.into()), true)
    }

    #[test]
    fn new_columns_and_members_are_added_and_known_ones_stay() {
        let contract = schema(vec![
            Field::new("id", DataType::Int64, false),
            record("p", vec![Field::new("a", DataType::Utf8, true)]),
            Field::new_list("l", record("item", vec![]), true),
        ]);
        let found = schema(vec![
            Field::new("new", DataType::Boolean, false),
            record("p", vec![Field::new("b", DataType::Int64, false), Field::new("a", DataType::Int64, true)]),
            Field::new("id", DataType::Utf8, true),
            Field::new_list("l", record("item", vec![Field::new("x", DataType::Int64, true)]), true),
        ]);
        let wanted = schema(vec![
            Field::new("id", DataType::Int64, false),
            record("p", vec![Field::new("a", DataType::Utf8, true), Field::new("b", DataType::Int64, true)]),
            Field::new_list("l", record("item", vec![Field::new("x", DataType::Int64, true)]), true),
            Field::new("new", DataType::Boolean, true),
        ]);
        assert_eq!(extend(&contract, &found), wanted);
        assert_eq!(extend(&wanted, &found), wanted);
    }
}
