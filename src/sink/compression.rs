//! The choice of a codec: one by name, or whatever the source has.

use crate::error::{Error, Result};
use parquet::basic::{BrotliLevel, Compression, GzipLevel, ZstdLevel};
use std::fmt;
use std::str::FromStr;

/// The codec of the table's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CompressionChoice {
    /// The source's own; zstd where a source has none (NDJSON).
    #[default]
    AsSource,
    /// This one; row groups of another codec are then encoded anew instead of copied.
    Codec(Compression),
}

impl CompressionChoice {
    /// The codec to encode with, where the source's is `source`.
    pub fn codec(self, source: Option<Compression>) -> Compression {
        match (self, source) {
            (Self::Codec(codec), _) => codec,
            // Hadoop's framing of LZ4 is deprecated, and LZO is not supported by the encoder.
            (Self::AsSource, Some(Compression::LZ4)) => Compression::LZ4_RAW,
            (Self::AsSource, None | Some(Compression::LZO)) => Compression::ZSTD(ZstdLevel::default()),
            (Self::AsSource, Some(codec)) => codec,
        }
    }

    /// Whether a column chunk of this codec may be copied as it is. Levels do not matter: a file does not tell them.
    pub fn permits(self, codec: Compression) -> bool {
        match self {
            Self::AsSource => true,
            Self::Codec(wanted) => std::mem::discriminant(&wanted) == std::mem::discriminant(&codec),
        }
    }
}

impl FromStr for CompressionChoice {
    type Err = Error;

    /// Reads `as-source`, `zstd`, `zstd(3)`, `snappy`, `gzip`, `gzip(6)`, `lz4`, `brotli`, `brotli(4)` or `none`.
    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            Error::Usage(format!(
                "unknown compression `{text}`; known are as-source, zstd[(1..22)], snappy, gzip[(0..9)], lz4, \
                 brotli[(0..11)] and none"
            ))
        };
        let lower = text.trim().to_ascii_lowercase();
        let (name, level) = match lower.strip_suffix(')').and_then(|open| open.split_once('(')) {
            Some((name, level)) => (name.trim(), Some(level.trim().parse::<u32>().map_err(|_| wrong())?)),
            None => (lower.as_str(), None),
        };
        let codec = match (name, level) {
            ("as-source" | "as source" | "source", None) => return Ok(Self::AsSource),
            ("none" | "uncompressed", None) => Compression::UNCOMPRESSED,
            ("snappy", None) => Compression::SNAPPY,
            ("lz4" | "lz4_raw", None) => Compression::LZ4_RAW,
            ("zstd", None) => Compression::ZSTD(ZstdLevel::default()),
            ("zstd", Some(level)) => {
                let level = i32::try_from(level).map_err(|_| wrong())?;
                Compression::ZSTD(ZstdLevel::try_new(level).map_err(|_| wrong())?)
            }
            ("gzip", None) => Compression::GZIP(GzipLevel::default()),
            ("gzip", Some(level)) => Compression::GZIP(GzipLevel::try_new(level).map_err(|_| wrong())?),
            ("brotli", None) => Compression::BROTLI(BrotliLevel::default()),
            ("brotli", Some(level)) => Compression::BROTLI(BrotliLevel::try_new(level).map_err(|_| wrong())?),
            _ => return Err(wrong()),
        };
        Ok(Self::Codec(codec))
    }
}

impl fmt::Display for CompressionChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AsSource => f.write_str("as-source"),
            Self::Codec(Compression::UNCOMPRESSED) => f.write_str("none"),
            Self::Codec(Compression::SNAPPY) => f.write_str("snappy"),
            Self::Codec(Compression::LZ4_RAW) => f.write_str("lz4"),
            Self::Codec(Compression::ZSTD(level)) => write!(f, "zstd({})", level.compression_level()),
            Self::Codec(Compression::GZIP(level)) => write!(f, "gzip({})", level.compression_level()),
            Self::Codec(Compression::BROTLI(level)) => write!(f, "brotli({})", level.compression_level()),
            Self::Codec(other) => write!(f, "{other}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_choice_reads_back_what_it_prints() {
        for text in ["as-source", "none", "snappy", "lz4", "zstd(3)", "gzip(6)", "brotli(4)"] {
            assert_eq!(text.parse::<CompressionChoice>().unwrap().to_string(), text);
        }
        assert!(matches!("ZSTD".parse().unwrap(), CompressionChoice::Codec(Compression::ZSTD(_))));
    }

    #[test]
    fn an_unknown_codec_or_level_is_refused_with_the_known_ones() {
        for text in ["", "lzo", "zstd(99)", "zstd(", "snappy(1)", "gzip(x)", "zstd(-1)"] {
            let error = text.parse::<CompressionChoice>().unwrap_err();
            assert!(error.to_string().contains("snappy"), "{text}: {error}");
        }
    }

    #[test]
    fn a_chosen_codec_permits_its_own_at_any_level() {
        let zstd: CompressionChoice = "zstd(9)".parse().unwrap();
        assert!(zstd.permits(Compression::ZSTD(ZstdLevel::default())));
        assert!(!zstd.permits(Compression::SNAPPY));
        assert!(CompressionChoice::AsSource.permits(Compression::LZO));
    }
}
