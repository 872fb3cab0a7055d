//! The streams of a program without a terminal, as one stream of frames (Docker Engine API, "Attach to a container"): a
//! byte for the stream, three zeros, the length in four bytes, and so many bytes.

use crate::relay::Stream;

const HEADER_BYTES: usize = 8;

/// What has come of the frame that is being read.
#[derive(Debug, Default)]
pub(super) struct Frames {
    header: [u8; HEADER_BYTES],
    filled: usize,
    /// Bytes of the frame that are to come.
    left: usize,
}

impl Frames {
    /// Tells what some more bytes hold, in order.
    pub(super) fn feed(&mut self, mut bytes: &[u8], tell: &mut dyn FnMut(Stream, &[u8])) {
        while !bytes.is_empty() {
            if self.left == 0 {
                let taken = usize::min(HEADER_BYTES - self.filled, bytes.len());
                self.header[self.filled..self.filled + taken].copy_from_slice(&bytes[..taken]);
                self.filled += taken;
                bytes = &bytes[taken..];
                if self.filled < HEADER_BYTES {
                    return;
                }
                let length = [self.header[4], self.header[5], self.header[6], self.header[7]];
                self.left = u32::from_be_bytes(length) as usize;
                self.filled = 0;
                continue;
            }
            let taken = usize::min(self.left, bytes.len());
            // Errors of the engine itself come as a third stream.
            let stream = if self.header[0] >= 2 { Stream::Stderr } else { Stream::Stdout };
            tell(stream, &bytes[..taken]);
            self.left -= taken;
            bytes = &bytes[taken..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_however_they_are_cut() {
        let mut sent = vec![1, 0, 0, 0, 0, 0, 0, 3];
        sent.extend(b"abc");
        sent.extend([2, 0, 0, 0, 0, 0, 0, 0]);
        sent.extend([2, 0, 0, 0, 0, 0, 0, 2]);
        sent.extend(b"de");
        for size in 1..=sent.len() {
            let (mut frames, mut out, mut err) = (Frames::default(), Vec::new(), Vec::new());
            for piece in sent.chunks(size) {
                frames.feed(piece, &mut |stream, bytes| match stream {
                    Stream::Stdout => out.extend_from_slice(bytes),
                    Stream::Stderr => err.extend_from_slice(bytes),
                });
            }
            assert_eq!((out.as_slice(), err.as_slice()), (&b"abc"[..], &b"de"[..]), "in pieces of {size}");
        }
    }
}
