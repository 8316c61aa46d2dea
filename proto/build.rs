//! Compiles the .proto files with protox, so that a machine needs no protoc.

use std::error::Error;

const FILES: [&str; 3] = ["files.proto", "p2p/v1/directory.proto", "p2p/v1/peer.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=p2p");
    println!("cargo::rerun-if-changed=files.proto");
    let descriptors = protox::compile(FILES, ["."])?;
    // `bytes` fields decode without a copy of the payload.
    let generated = tonic_prost_build::configure().bytes(".").codec_path("crate::codec::SmallBuffers");
    generated.compile_fds(descriptors)?;
    Ok(())
}
