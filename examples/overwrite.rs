//! Overwrites bytes of a file with text, durably. The file keeps its size.
//!
//!     cargo run --release -p nvio --example overwrite -- DEVICE PATH OFFSET TEXT

use std::error::Error;

use nvio::WritableVolume;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [device, path, offset, text] = &arguments[..] else {
        return Err("usage: overwrite DEVICE PATH OFFSET TEXT".into());
    };
    let offset = offset.parse()?;
    // A volume that was opened for reading has no call that writes.
    let volume = WritableVolume::open(device)?;
    let mut file = volume.open_writable(path)?;
    file.write_durably_at(offset, text.as_bytes())?;

    let mut back = vec![0; text.len()];
    volume.open_file(path)?.read_exact_at(offset, &mut back)?;
    println!("bytes {offset} to {}: {:?}", offset + text.len() as u64, String::from_utf8(back)?);
    Ok(())
}
