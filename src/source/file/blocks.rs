//! Reading a block of a file at an offset.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Up to `wanted` bytes at `at`; fewer only where the file ends.
pub(super) fn read(file: &File, at: u64, wanted: usize) -> io::Result<Vec<u8>> {
    let mut block = vec![0; wanted];
    let mut length = 0;
    while length < wanted {
        match file.read_at(&mut block[length..], at + length as u64) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    block.truncate(length);
    Ok(block)
}
