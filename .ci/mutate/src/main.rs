//! Writes mutants into a copy of the sources, all at once and each behind a switch, so that one build serves them all.
//!
//!     mutate LIST ROOT [NUMBER…]
//!
//! LIST is what `cargo mutants --list --json` says of the sources in ROOT, which are changed in place. A mutant's number is
//! its place in the list; those named are left out. `crate::switched::on(NUMBER)` decides at run time. Prints the numbers
//! of those that found no place, because no program can decide about them: constants, `let` chains, opaque types, arms that
//! the compiler counts on.
//!
//! What belongs to mutant 7 alone stands between `/*<7*/` and `/*7>*/`; all that was written for it and others at one place
//! between `/*[7,8*/` and `/*7,8]*/`. So an error of the compiler can be laid to the mutants it is due to.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::ops::Range;
use std::path::Path;
use std::{cmp, env, fs};

use serde::Deserialize;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{BinOp, Block, Expr, ReturnType, Signature, Type};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [list, root, left_out @ ..] = &arguments[..] else {
        return Err("mutate LIST ROOT [NUMBER…]".into());
    };
    let left_out = left_out.iter().map(|number| number.parse()).collect::<Result<BTreeSet<usize>, _>>()?;
    let mutants: Vec<Mutant> = serde_json::from_str(&fs::read_to_string(list)?)?;
    let mut of_files: BTreeMap<&str, Wanted> = BTreeMap::new();
    for (number, mutant) in mutants.iter().enumerate().filter(|(number, _)| !left_out.contains(number)) {
        let at = (mutant.genre.as_str(), mutant.span.start.line, mutant.span.start.column);
        of_files.entry(&mutant.file).or_default().entry(at).or_default().push((number, &mutant.replacement));
    }
    for (file, wanted) in of_files {
        let path = Path::new(root).join(file);
        let source = fs::read_to_string(&path)?;
        let mut places = Places { wanted, edits: Vec::new(), fixed: 0 };
        places.visit_file(&syn::parse_file(&source).map_err(|e| format!("{file}: {e}"))?);
        places.wanted.values().flatten().for_each(|(number, _)| println!("{number}"));
        // What stands outside comes first; of what begins and ends alike, what was met first.
        places.edits.sort_by_key(|edit| (edit.range.start, cmp::Reverse(edit.range.end)));
        let text = Text { source: &source, edits: &places.edits };
        fs::write(path, text.render(0..source.len(), 0))?;
    }
    Ok(())
}

#[derive(Deserialize)]
struct Mutant {
    file: String,
    genre: String,
    replacement: String,
    span: Span,
}

#[derive(Deserialize)]
struct Span {
    start: Place,
}

#[derive(Deserialize)]
struct Place {
    line: usize,
    column: usize,
}

/// Numbers and replacements, by kind, line and column.
type Wanted<'a> = BTreeMap<(&'a str, usize, usize), Mutants<'a>>;
type Mutants<'a> = Vec<(usize, &'a str)>;

/// A place in a file that mutants change.
struct Edit<'a> {
    range: Range<usize>,
    mutants: Mutants<'a>,
    kind: Kind,
}

enum Kind {
    /// The beginning of a function's body.
    Body,
    /// `left operator right`.
    Binary { left: Range<usize>, right: Range<usize>, operator: Range<usize>, lazy: Option<Lazy> },
    /// An operator in front of this.
    Unary { operand: Range<usize> },
    /// The guard of an arm.
    Guard,
    /// The end of an arm's pattern.
    Arm,
    /// A member of a structure whose other members come from `base`.
    Member { name: String, value: Range<usize>, base: Range<usize>, path: Range<usize> },
}

#[derive(Clone, Copy)]
enum Lazy {
    And,
    Or,
}

/// Finds the places of the mutants that are wanted.
struct Places<'a> {
    wanted: Wanted<'a>,
    edits: Vec<Edit<'a>>,
    /// Greater than 0 within what is evaluated at compile time.
    fixed: usize,
}

impl Places<'_> {
    fn add(&mut self, genre: &'static str, key: proc_macro2::Span, range: Range<usize>, kind: Kind) {
        let start = key.start();
        if self.fixed == 0
            && let Some(mutants) = self.wanted.remove(&(genre, start.line, start.column + 1))
        {
            self.edits.push(Edit { range, mutants, kind });
        }
    }

    fn fixed(&mut self, visit: impl FnOnce(&mut Self)) {
        self.fixed += 1;
        visit(self);
        self.fixed -= 1;
    }

    fn function(&mut self, signature: &Signature, block: &Block, visit: impl FnOnce(&mut Self)) {
        if signature.constness.is_some() {
            return self.fixed(visit);
        }
        let opaque = matches!(&signature.output, ReturnType::Type(_, output) if is_opaque(output));
        if let Some(first) = block.stmts.first().filter(|_| !opaque) {
            let begin = block.brace_token.span.open().byte_range().end;
            self.add("FnValue", first.span(), begin..begin, Kind::Body);
        }
        visit(self);
    }
}

fn is_opaque(output: &Type) -> bool {
    struct Opaque(bool);
    impl Visit<'_> for Opaque {
        fn visit_type_impl_trait(&mut self, _: &syn::TypeImplTrait) {
            self.0 = true;
        }
    }
    let mut found = Opaque(false);
    found.visit_type(output);
    found.0
}

/// Whether a condition is, or begins with, a `let`.
fn has_let(condition: &Expr) -> bool {
    match condition {
        Expr::Let(_) => true,
        Expr::Binary(both) if matches!(both.op, BinOp::And(_)) => has_let(&both.left) || has_let(&both.right),
        _ => false,
    }
}

fn bytes(of: &impl Spanned) -> Range<usize> {
    of.span().byte_range()
}

impl<'ast> Visit<'ast> for Places<'_> {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.function(&item.sig, &item.block, |places| visit::visit_item_fn(places, item));
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.function(&item.sig, &item.block, |places| visit::visit_impl_item_fn(places, item));
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.function(&item.sig, block, |places| visit::visit_trait_item_fn(places, item));
        }
    }

    fn visit_item_const(&mut self, item: &'ast syn::ItemConst) {
        self.fixed(|places| visit::visit_item_const(places, item));
    }

    fn visit_impl_item_const(&mut self, item: &'ast syn::ImplItemConst) {
        self.fixed(|places| visit::visit_impl_item_const(places, item));
    }

    fn visit_item_static(&mut self, item: &'ast syn::ItemStatic) {
        self.fixed(|places| visit::visit_item_static(places, item));
    }

    fn visit_type(&mut self, item: &'ast Type) {
        self.fixed(|places| visit::visit_type(places, item));
    }

    fn visit_pat(&mut self, item: &'ast syn::Pat) {
        self.fixed(|places| visit::visit_pat(places, item));
    }

    fn visit_expr_repeat(&mut self, item: &'ast syn::ExprRepeat) {
        self.visit_expr(&item.expr);
        self.fixed(|places| places.visit_expr(&item.len));
    }

    fn visit_expr_binary(&mut self, item: &'ast syn::ExprBinary) {
        let lazy = match item.op {
            BinOp::And(_) => Some(Lazy::And),
            BinOp::Or(_) => Some(Lazy::Or),
            _ => None,
        };
        if !(lazy.is_some() && (has_let(&item.left) || has_let(&item.right))) {
            let (left, right, operator) = (bytes(&item.left), bytes(&item.right), bytes(&item.op));
            let kind = Kind::Binary { left, right, operator, lazy };
            self.add("BinaryOperator", item.op.span(), bytes(item), kind);
        }
        visit::visit_expr_binary(self, item);
    }

    fn visit_expr_unary(&mut self, item: &'ast syn::ExprUnary) {
        let kind = Kind::Unary { operand: bytes(&item.expr) };
        self.add("UnaryOperator", item.op.span(), bytes(item), kind);
        visit::visit_expr_unary(self, item);
    }

    fn visit_expr_match(&mut self, item: &'ast syn::ExprMatch) {
        // Without it the compiler would not believe that all cases are met.
        let catches_all =
            item.arms.iter().any(|arm| matches!(arm.pat, syn::Pat::Wild(_)) && arm.guard.is_none());
        for arm in &item.arms {
            match &arm.guard {
                Some((_, guard)) => self.add("MatchArmGuard", guard.span(), bytes(guard), Kind::Guard),
                None if catches_all => {
                    let end = bytes(&arm.pat).end;
                    self.add("MatchArm", arm.span(), end..end, Kind::Arm);
                }
                None => {}
            }
        }
        visit::visit_expr_match(self, item);
    }

    fn visit_expr_struct(&mut self, item: &'ast syn::ExprStruct) {
        if let Some(base) = &item.rest {
            for field in &item.fields {
                if let syn::Member::Named(name) = &field.member {
                    let (base, path) = (bytes(base), bytes(&item.path));
                    let kind = Kind::Member { name: name.to_string(), value: bytes(&field.expr), base, path };
                    self.add("StructField", field.span(), bytes(field), kind);
                }
            }
        }
        visit::visit_expr_struct(self, item);
    }
}

/// A file with its edits.
struct Text<'a> {
    source: &'a str,
    edits: &'a [Edit<'a>],
}

impl Text<'_> {
    /// A part of the file with all edits in it from that number on.
    fn render(&self, range: Range<usize>, from: usize) -> String {
        let (mut text, mut at) = (String::new(), range.start);
        for (number, edit) in self.edits.iter().enumerate().skip(from) {
            if edit.range.start >= at && edit.range.end <= range.end {
                text += &self.source[at..edit.range.start];
                text += &self.edited(number, edit);
                at = edit.range.end;
            }
        }
        text + &self.source[at..range.end]
    }

    fn edited(&self, number: usize, edit: &Edit<'_>) -> String {
        let inner = |range: &Range<usize>| self.render(range.clone(), number + 1);
        let all = edit.mutants.iter().map(|(number, _)| number.to_string()).collect::<Vec<_>>().join(",");
        // One branch for each mutant, and one for none of them.
        let branches = |of: &dyn Fn(&str) -> String, otherwise: String| {
            let branch = |(number, with): &(usize, &str)| {
                format!(
                    "if crate::switched::on({number}) {{ /*<{number}*/ {} /*{number}>*/ }} else ",
                    of(with)
                )
            };
            format!("({}{{ {otherwise} }})", edit.mutants.iter().map(branch).collect::<String>())
        };
        let switched = match &edit.kind {
            Kind::Body => (edit.mutants.iter())
                .map(|(number, with)| {
                    let value = format!("/*<{number}*/ return {with}; /*{number}>*/");
                    format!(" if crate::switched::on({number}) {{ {value} }}")
                })
                .collect(),
            Kind::Binary { left, right, lazy: Some(lazy), .. } => {
                let (left, right, on) = (inner(left), inner(right), self.any(edit));
                let goes_on = match lazy {
                    Lazy::And => "!=",
                    Lazy::Or => "==",
                };
                format!(
                    "({{ let was_first: bool = {left}; if was_first {goes_on} {on} {{ {right} }} else {{ was_first }} }})"
                )
            }
            Kind::Binary { left, right, operator, lazy: None } => {
                let (left, right) = (inner(left), inner(right));
                let with = |operator: &str| format!("({left}) {operator} ({right})");
                branches(&with, with(&self.source[operator.clone()]))
            }
            Kind::Unary { operand } => {
                branches(&|_| inner(operand), self.rest(edit, operand, &inner(operand)))
            }
            Kind::Guard => branches(&|with| with.to_owned(), inner(&edit.range)),
            Kind::Arm => format!(" if !{}", self.any(edit)),
            Kind::Member { name, value, base, path } => {
                let (base, path, value) = (inner(base), &self.source[path.clone()], inner(value));
                let of_base = |_: &str| format!("let base: {path} = {base}; base.{name}");
                format!("{name}: {}", branches(&of_base, value))
            }
        };
        format!("/*[{all}*/{switched}/*{all}]*/")
    }

    /// A condition: whether one of the edit's mutants is chosen.
    fn any(&self, edit: &Edit<'_>) -> String {
        let on = |(number, _): &(usize, &str)| format!("crate::switched::on({number})");
        format!("({})", edit.mutants.iter().map(on).collect::<Vec<_>>().join(" || "))
    }

    /// What stands before `operand`, and it.
    fn rest(&self, edit: &Edit<'_>, operand: &Range<usize>, text: &str) -> String {
        format!("{}{text}", &self.source[edit.range.start..operand.start])
    }
}
