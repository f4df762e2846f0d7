//! Decompression of a source as a whole, with errors that name it.

use super::discover::Compression;
use flate2::bufread::MultiGzDecoder;
use std::{
    fmt,
    io::{self, BufReader, ErrorKind, Read},
};

const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// The largest window of a zstd frame, as a power of two: 128 MiB, what zstd itself takes without being told more. A
/// decoder holds the whole window.
const MAX_WINDOW_LOG: u32 = 27;
/// What decompressors read at a time.
const BUFFER: usize = 256 << 10;

/// The decompressed bytes of `raw`: all members of a gzip file, all frames of a zstd file.
///
/// No text begins as a compressed file does, so one that was stored without its suffix (some services do) is
/// recognised too. `name` is what errors call the source.
pub(super) fn unpack(
    raw: impl Read + Send + 'static,
    compression: Compression,
    name: &str,
) -> io::Result<Box<dyn Read + Send>> {
    let mut raw = raw;
    let mut start = Vec::with_capacity(ZSTD.len());
    raw.by_ref().take(ZSTD.len() as u64).read_to_end(&mut start)?;
    let empty = start.is_empty();
    let compression = match compression {
        Compression::None if start.starts_with(&GZIP) => Compression::Gzip,
        Compression::None if start.starts_with(&ZSTD) => Compression::Zstd,
        stated => stated,
    };
    let raw = BufReader::with_capacity(BUFFER, io::Cursor::new(start).chain(raw));
    let named = |kind, reader: Box<dyn Read + Send>| -> Box<dyn Read + Send> {
        Box::new(Named { reader, kind, name: name.to_owned() })
    };
    Ok(match compression {
        Compression::None => Box::new(raw),
        // An empty file is no stream of either kind; the decompressors would not notice.
        Compression::Gzip | Compression::Zstd if empty => named(compression, Box::new(Cut)),
        Compression::Gzip => named(compression, Box::new(MultiGzDecoder::new(raw))),
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(raw)?;
            decoder.window_log_max(MAX_WINDOW_LOG)?;
            named(compression, Box::new(decoder))
        }
    })
}

/// Puts the source's name on what goes wrong.
struct Named {
    reader: Box<dyn Read + Send>,
    kind: Compression,
    name: String,
}

impl Read for Named {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer).map_err(|error| {
            if error.kind() == ErrorKind::Interrupted
                || error.get_ref().is_some_and(|e| e.is::<crate::Error>())
            {
                return error;
            }
            let (name, kind) = (&self.name, self.kind);
            let words = if error.kind() == ErrorKind::UnexpectedEof {
                format!(
                    "{name}: the {kind} stream ends early: the file was cut short, or is still being written"
                )
            } else if error.to_string().contains("too much memory") {
                format!(
                    "{name}: it was compressed with a window over {} MiB; compress it again without --long or --ultra",
                    1 << (MAX_WINDOW_LOG - 20)
                )
            } else {
                format!("{name}: this is no sound {kind} stream: {error}")
            };
            io::Error::new(error.kind(), words)
        })
    }
}

/// A stream that ends before it begins.
struct Cut;

impl Read for Cut {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(ErrorKind::UnexpectedEof.into())
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "uncompressed",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Cursor, Write};

    fn gzip(text: &str) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(text: &str) -> Vec<u8> {
        zstd::encode_all(text.as_bytes(), 1).unwrap()
    }

    fn read(bytes: &[u8], compression: Compression) -> io::Result<String> {
        let mut text = String::new();
        unpack(Cursor::new(bytes.to_vec()), compression, "in.x")?.read_to_string(&mut text)?;
        Ok(text)
    }

    fn long() -> String {
        (0..200_000).map(|i| format!("{i}\n")).collect()
    }

    #[test]
    fn every_member_and_frame_is_read() {
        let (long, short) = (long(), "x".to_owned());
        let all = format!("{long}{short}");
        assert!(read(&[gzip(&long), gzip(&short)].concat(), Compression::Gzip).unwrap() == all);
        assert!(read(&[zstd(&long), zstd(&short)].concat(), Compression::Zstd).unwrap() == all);
        assert_eq!(read(&[gzip(""), gzip(&short)].concat(), Compression::Gzip).unwrap(), "x");
        assert_eq!(read(&[zstd(""), zstd(&short)].concat(), Compression::Zstd).unwrap(), "x");
        assert_eq!(read(b"", Compression::None).unwrap(), "");
    }

    #[test]
    fn compression_is_recognised_without_a_suffix() {
        assert_eq!(read(&gzip("{}"), Compression::None).unwrap(), "{}");
        assert_eq!(read(&zstd("{}"), Compression::None).unwrap(), "{}");
        assert_eq!(read(b"{}", Compression::None).unwrap(), "{}");
    }

    #[test]
    fn a_cut_stream_is_an_error_that_names_it_wherever_it_is_cut() {
        let text = long();
        for (whole, compression) in [(gzip(&text), Compression::Gzip), (zstd(&text), Compression::Zstd)] {
            let length = whole.len();
            for cut in [0, 1, 3, 5, 9, length / 3, length / 2, length - 9, length - 4, length - 1] {
                let error = read(&whole[..cut], compression).unwrap_err().to_string();
                assert!(error.starts_with("in.x: the ") && error.contains("ends early"), "{cut}: {error}");
            }
        }
    }

    #[test]
    fn a_damaged_stream_is_an_error_that_names_it() {
        for compression in [Compression::Gzip, Compression::Zstd] {
            let error = read(b"{\"a\":1}\n{\"a\":2}\n{\"a\":3}\n", compression).unwrap_err().to_string();
            assert!(error.starts_with("in.x: this is no sound"), "{error}");
        }
        let mut whole = gzip(&long());
        let middle = whole.len() / 2;
        whole[middle] ^= 0x55;
        assert!(read(&whole, Compression::Gzip).is_err());
    }
}
