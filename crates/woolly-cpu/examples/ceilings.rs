//! Prints what this machine can do at most: `cargo run --release -p woolly-cpu --example ceilings [threads...]`.

#![expect(clippy::print_stdout, reason = "a measurement prints its results")]

use woolly_cpu::ceiling::{Bandwidth, ReadProbe, Unit};
use woolly_cpu::pool::ThreadPool;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let asked: Vec<usize> = std::env::args().skip(1).map(|arg| arg.parse()).collect::<Result<_, _>>()?;
    let asked = if asked.is_empty() { vec![1, woolly_cpu::default_threads()] } else { asked };
    let probe = ReadProbe::new(1 << 30).ok_or("1 GiB of memory is needed")?;
    for threads in asked {
        let pool = ThreadPool::new(threads, false)?;
        let Bandwidth { best, mean } = probe.bandwidth(&pool);
        println!("{threads} threads: read {:.1} GB/s at best, {:.1} on average", best / 1e9, mean / 1e9);
        for (unit, peak) in Unit::ALL.into_iter().filter_map(|unit| Some((unit, unit.peak(&pool)?))) {
            println!("  {:16} {:6.3} TOP/s", unit.name(), peak / 1e12);
        }
    }
    Ok(())
}
