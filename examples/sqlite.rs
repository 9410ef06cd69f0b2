//! Runs a statement on an SQLite database that is a file of a filesystem.
//!
//!     cargo run --release -p nvio --example sqlite -- DEVICE PATH SQL

#![allow(clippy::cast_possible_truncation, reason = "SQLite counts in int")]

use std::error::Error;

use nvio::Volume;
use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [device, path, sql] = &arguments[..] else {
        return Err("usage: sqlite DEVICE PATH SQL".into());
    };
    vfs::register(Volume::open(device)?)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    let uri = format!("file:{path}?immutable=1");
    let database = Connection::open_with_flags_and_vfs(uri, flags, c"nvio")?;
    let mut statement = database.prepare(sql)?;
    let columns = statement.column_count();
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let values = (0..columns).map(|column| row.get(column).map(text));
        println!("{}", values.collect::<Result<Vec<_>, _>>()?.join("|"));
    }
    Ok(())
}

fn text(value: Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Integer(number) => number.to_string(),
        Value::Real(number) => number.to_string(),
        Value::Text(text) => text,
        Value::Blob(bytes) => format!("x'{}'", bytes.escape_ascii()),
    }
}

/// A virtual filesystem of SQLite (sqlite.org/vfs.html) that opens files of a volume for reading.
mod vfs {
    use std::ffi::{CStr, c_char, c_int, c_void};
    use std::{mem, ptr, slice};

    use nvio::{File, Volume};
    use rusqlite::ffi::*;

    type Handle = *mut sqlite3_file;

    /// The file of a connection, in memory that SQLite allocates.
    #[repr(C)]
    struct OpenFile(sqlite3_file, *mut File);

    static METHODS: sqlite3_io_methods = sqlite3_io_methods {
        iVersion: 1,
        xClose: Some(close),
        xRead: Some(read),
        xFileSize: Some(size),
        xFileControl: Some(control),
        xDeviceCharacteristics: Some(characteristics),
        // SAFETY: zeroes are a version, and methods that are `None`: writes, locks, shared memory.
        ..unsafe { mem::zeroed() }
    };

    /// Registers `volume` as "nvio" for the life of the process.
    pub fn register(volume: Volume) -> Result<(), String> {
        // SAFETY: the default VFS is valid, and its clock and random numbers use no state of it.
        let default = unsafe { sqlite3_vfs_find(ptr::null()).read() };
        let vfs = Box::leak(Box::new(sqlite3_vfs {
            iVersion: 1,
            szOsFile: mem::size_of::<OpenFile>() as c_int,
            zName: c"nvio".as_ptr(),
            pAppData: Box::into_raw(Box::new(volume)).cast(),
            xOpen: Some(open),
            xDelete: None,
            xFullPathname: Some(full_path),
            ..default
        }));
        // SAFETY: the structure is leaked, so that it stays valid.
        let code = unsafe { sqlite3_vfs_register(vfs, 0) };
        (code == SQLITE_OK).then_some(()).ok_or(format!("sqlite3_vfs_register: {code}"))
    }

    #[rustfmt::skip]
    unsafe extern "C" fn open(vfs: *mut sqlite3_vfs, path: sqlite3_filename, handle: Handle, flags: c_int, out_flags: *mut c_int) -> c_int {
        // SAFETY: `handle` has szOsFile bytes, `pAppData` is the volume that `register` leaked, and
        // the path ends with a zero byte.
        let (handle, volume, path) = unsafe {
            (*handle).pMethods = ptr::null();
            (handle.cast::<OpenFile>(), &*(*vfs).pAppData.cast::<Volume>(), CStr::from_ptr(path))
        };
        let Ok(file) = volume.open_file(path.to_bytes()) else { return SQLITE_CANTOPEN };
        // SAFETY: as above; `out_flags` is null or valid.
        unsafe {
            handle.write(OpenFile(sqlite3_file { pMethods: &METHODS }, Box::into_raw(Box::new(file))));
            if let Some(out) = out_flags.as_mut() { *out = flags }
        }
        SQLITE_OK
    }

    unsafe extern "C" fn close(handle: Handle) -> c_int {
        // SAFETY: `open` stored the file, and SQLite closes it once.
        drop(unsafe { Box::from_raw((*handle.cast::<OpenFile>()).1) });
        SQLITE_OK
    }

    #[rustfmt::skip]
    unsafe extern "C" fn read(handle: Handle, to: *mut c_void, n: c_int, at: i64) -> c_int {
        // SAFETY: `open` stored the file, and `to` has room for `n` bytes.
        let (file, out) = unsafe {
            (&mut *(*handle.cast::<OpenFile>()).1, slice::from_raw_parts_mut(to.cast::<u8>(), n as usize))
        };
        match file.read_at(at as u64, out) {
            Ok(read) if read == out.len() => SQLITE_OK,
            Ok(read) => { out[read..].fill(0); SQLITE_IOERR_SHORT_READ }
            Err(_) => SQLITE_IOERR_READ,
        }
    }

    unsafe extern "C" fn size(handle: Handle, out: *mut i64) -> c_int {
        // SAFETY: `open` stored the file, and `out` is valid.
        unsafe { *out = (*(*handle.cast::<OpenFile>()).1).size() as i64 };
        SQLITE_OK
    }

    unsafe extern "C" fn control(_: Handle, _: c_int, _: *mut c_void) -> c_int {
        SQLITE_NOTFOUND
    }

    unsafe extern "C" fn characteristics(_: Handle) -> c_int {
        SQLITE_IOCAP_IMMUTABLE
    }

    #[rustfmt::skip]
    unsafe extern "C" fn full_path(_: *mut sqlite3_vfs, path: *const c_char, room: c_int, out: *mut c_char) -> c_int {
        // SAFETY: `out` has `room` bytes; a path that is cut still ends with a zero byte.
        unsafe { sqlite3_snprintf(room, out, c"%s".as_ptr(), path) };
        SQLITE_OK
    }
}
