//! Parquet by hand, so that a file can claim whatever a test wants: Thrift's compact protocol, pages and footers.

/// A growing Thrift structure.
#[derive(Default, Clone)]
pub struct Thrift {
    pub bytes: Vec<u8>,
    last: u8,
}

impl Thrift {
    fn field(&mut self, id: u8, kind: u8) {
        self.bytes.push((id - self.last) << 4 | kind);
        self.last = id;
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    pub fn int(mut self, id: u8, value: i64) -> Self {
        self.field(id, 6);
        self.varint((value << 1 ^ value >> 63) as u64);
        self
    }

    /// Of 32 bits, which readers tell apart.
    pub fn small(mut self, id: u8, value: i64) -> Self {
        self.field(id, 5);
        self.varint((value << 1 ^ value >> 63) as u64);
        self
    }

    pub fn text(mut self, id: u8, value: &[u8]) -> Self {
        self.field(id, 8);
        self.varint(value.len() as u64);
        self.bytes.extend_from_slice(value);
        self
    }

    pub fn structure(mut self, id: u8, inner: Self) -> Self {
        self.field(id, 12);
        self.bytes.extend(inner.end());
        self
    }

    pub fn structures(self, id: u8, items: impl IntoIterator<Item = Self>) -> Self {
        let items: Vec<Self> = items.into_iter().collect();
        let count = items.len() as u64;
        self.list(id, 12, count, &items.into_iter().flat_map(Self::end).collect::<Vec<u8>>())
    }

    pub fn numbers(self, id: u8, items: &[i64]) -> Self {
        let mut inner = Self::default();
        items.iter().for_each(|value| inner.varint((value << 1 ^ value >> 63) as u64));
        self.list(id, 5, items.len() as u64, &inner.bytes)
    }

    pub fn texts(self, id: u8, items: &[&str]) -> Self {
        let mut inner = Self::default();
        for text in items {
            inner.varint(text.len() as u64);
            inner.bytes.extend_from_slice(text.as_bytes());
        }
        self.list(id, 8, items.len() as u64, &inner.bytes)
    }

    /// A list that claims `count` elements, whatever there is.
    pub fn list(mut self, id: u8, kind: u8, count: u64, elements: &[u8]) -> Self {
        self.field(id, 9);
        if count < 15 {
            self.bytes.push((count as u8) << 4 | kind);
        } else {
            self.bytes.push(0xf0 | kind);
            self.varint(count);
        }
        self.bytes.extend_from_slice(elements);
        self
    }

    pub fn end(mut self) -> Vec<u8> {
        self.bytes.push(0);
        self.bytes
    }
}

pub const INT32: i64 = 1;
pub const INT64: i64 = 2;
pub const BYTES: i64 = 6;
pub const FIXED: i64 = 7;

pub const PLAIN: i64 = 0;
pub const DICTIONARY: i64 = 8;

pub const ZSTD: i64 = 6;

/// A page: its header and its packed body.
pub fn page(kind: i64, values: i64, encoding: i64, unpacked: i64, packed: &[u8]) -> Vec<u8> {
    let inner = Thrift::default().small(1, values).small(2, encoding);
    let inner = if kind == 0 { inner.small(3, 3).small(4, 3) } else { inner };
    let header = Thrift::default()
        .small(1, kind)
        .small(2, unpacked)
        .small(3, packed.len() as i64)
        .structure(if kind == 0 { 5 } else { 7 }, inner);
    [header.end(), packed.to_vec()].concat()
}

pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).unwrap()
}

/// `start`, then `count` times `byte`, packed without being held.
pub fn zstd_of(start: &[u8], byte: u8, count: u64) -> Vec<u8> {
    use std::io::Read;
    let mut packed = zstd::Encoder::new(Vec::new(), 3).unwrap();
    std::io::copy(&mut start.chain(std::io::repeat(byte).take(count)), &mut packed).unwrap();
    packed.finish().unwrap()
}

/// A column of a row group to be.
#[derive(Clone)]
pub struct Column {
    pub name: &'static str,
    pub kind: i64,
    /// For fixed-size bytes.
    pub width: i64,
    pub optional: bool,
    pub values: i64,
    /// Where its first data page lies in the file, and how long its chunk is.
    pub place: (i64, i64),
    /// How far before its data page its dictionary lies.
    pub dictionary: Option<i64>,
    pub unpacked: i64,
}

impl Column {
    fn element(&self) -> Thrift {
        let element = Thrift::default().small(1, self.kind);
        let element = if self.kind == FIXED { element.small(2, self.width) } else { element };
        element.small(3, i64::from(self.optional)).text(4, self.name.as_bytes())
    }

    fn chunk(&self) -> Thrift {
        let (at, length) = self.place;
        let data = at + self.dictionary.unwrap_or(0);
        let metadata = Thrift::default()
            .small(1, self.kind)
            .numbers(2, &[PLAIN, 3, DICTIONARY])
            .texts(3, &[self.name])
            .small(4, ZSTD)
            .int(5, self.values)
            .int(6, self.unpacked)
            .int(7, length)
            .int(9, data);
        let metadata = if self.dictionary.is_some() { metadata.int(11, at) } else { metadata };
        Thrift::default().int(2, at).structure(3, metadata)
    }
}

/// A file of one row group: the pages, and a footer that says what the columns say.
pub fn file(pages: &[u8], rows: i64, columns: &[Column]) -> Vec<u8> {
    let root = Thrift::default().text(4, b"root").small(5, columns.len() as i64);
    let schema = std::iter::once(root).chain(columns.iter().map(Column::element));
    let group = Thrift::default().structures(1, columns.iter().map(Column::chunk)).int(2, 100).int(3, rows);
    let footer = Thrift::default().small(1, 1).structures(2, schema).int(3, rows).structures(4, [group]);
    whole(pages, &footer.end())
}

/// Magic, pages, footer, its length, magic.
pub fn whole(pages: &[u8], footer: &[u8]) -> Vec<u8> {
    [b"PAR1", pages, footer, &(footer.len() as u32).to_le_bytes(), b"PAR1"].concat()
}
