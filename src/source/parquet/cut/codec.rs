//! Page compression, as each codec is used within Parquet.

use super::{Fit, unfit};
use flate2::read::MultiGzDecoder;
use parquet::basic::Compression;
use std::io::{Read, Write};

/// Brotli's window and buffer, as parquet's own writer has them.
const BROTLI_WINDOW: u32 = 22;
const BROTLI_BUFFER: usize = 4096;

/// Whether pages of this codec can be unpacked and packed here.
pub(super) fn known(codec: Compression) -> bool {
    // LZ4 is the deprecated one, whose framing nobody agrees on; LZO has no library.
    !matches!(codec, Compression::LZ4 | Compression::LZO)
}

/// Unpacks exactly `size` bytes, in place of what is in `out`.
pub(super) fn decompress(codec: Compression, bytes: &[u8], size: usize, out: &mut Vec<u8>) -> Fit<()> {
    let broken = "a page that cannot be unpacked";
    // What is there already need not be zeroed.
    let mut filled = |fill: &dyn Fn(&mut [u8]) -> Option<usize>| {
        out.resize(size, 0);
        fill(out).filter(|length| *length == size).map(drop).ok_or(())
    };
    let read = match codec {
        Compression::SNAPPY => {
            if snap::raw::decompress_len(bytes).ok() != Some(size) {
                return unfit(broken);
            }
            filled(&|out| snap::raw::Decoder::new().decompress(bytes, out).ok())
        }
        Compression::LZ4_RAW => filled(&|out| lz4_flex::block::decompress_into(bytes, out).ok()),
        Compression::GZIP(_) => read_all(MultiGzDecoder::new(bytes), size, out),
        Compression::BROTLI(_) => read_all(brotli::Decompressor::new(bytes, BROTLI_BUFFER), size, out),
        Compression::ZSTD(_) => match zstd::Decoder::with_buffer(bytes) {
            Ok(decoder) => read_all(decoder, size, out),
            Err(_) => Err(()),
        },
        Compression::UNCOMPRESSED | Compression::LZ4 | Compression::LZO => Err(()),
    };
    if read.is_err() || out.len() != size { unfit(broken) } else { Ok(()) }
}

/// Packs pages, with memory that is used again from page to page.
pub(super) struct Press {
    /// The page to be packed, as it is put together.
    pub(super) plain: Vec<u8>,
    packed: Vec<u8>,
    snappy: snap::raw::Encoder,
}

impl std::fmt::Debug for Press {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Press")
    }
}

impl Default for Press {
    fn default() -> Self {
        Self { plain: Vec::new(), packed: Vec::new(), snappy: snap::raw::Encoder::new() }
    }
}

impl Press {
    /// Bytes that it keeps.
    pub(super) fn memory(&self) -> usize {
        self.plain.capacity() + self.packed.capacity()
    }

    /// Packs `bytes`.
    pub(super) fn pack(&mut self, codec: Compression, bytes: &[u8]) -> Fit<Vec<u8>> {
        let broken = "a page that cannot be packed";
        let packed = match codec {
            Compression::UNCOMPRESSED => Ok(bytes.to_vec()),
            Compression::SNAPPY => self.snappy(bytes),
            Compression::GZIP(_) => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
                encoder.write_all(bytes).and_then(|()| encoder.finish()).map_err(|_| ())
            }
            Compression::BROTLI(level) => {
                let mut packed = Vec::new();
                let mut encoder = brotli::CompressorWriter::new(
                    &mut packed,
                    BROTLI_BUFFER,
                    level.compression_level(),
                    BROTLI_WINDOW,
                );
                let written = encoder.write_all(bytes).and_then(|()| encoder.flush());
                drop(encoder);
                written.map(|()| packed).map_err(|_| ())
            }
            Compression::ZSTD(level) => {
                zstd::bulk::compress(bytes, level.compression_level()).map_err(|_| ())
            }
            Compression::LZ4_RAW => Ok(lz4_flex::block::compress(bytes)),
            Compression::LZ4 | Compression::LZO => Err(()),
        };
        packed.or_else(|()| unfit(broken))
    }

    /// What is there already need not be zeroed, and what comes out takes no more than it must.
    fn snappy(&mut self, bytes: &[u8]) -> Result<Vec<u8>, ()> {
        let most = snap::raw::max_compress_len(bytes.len());
        if self.packed.len() < most {
            self.packed.resize(most, 0);
        }
        let length = self.snappy.compress(bytes, &mut self.packed).map_err(|_| ())?;
        self.packed.get(..length).map(<[u8]>::to_vec).ok_or(())
    }
}

fn read_all(reader: impl Read, size: usize, out: &mut Vec<u8>) -> Result<(), ()> {
    out.clear();
    out.reserve_exact(size);
    // One byte more than wanted, to notice that there is more.
    reader.take(size as u64 + 1).read_to_end(out).map(drop).map_err(|_| ())
}
