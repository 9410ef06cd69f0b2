//! Named checks of the driver on controllers with known contents ([`crate::media`]).
//!
//! The program `nvme-check` runs them, in the guest on QEMU's controllers or elsewhere on others. A
//! role describes the special feature of a controller, and selects its checks.

mod busy;
mod faulty;
mod idle;
mod io;
mod plain;
mod protection;
mod removed;
mod reset;
mod runner;
mod writes;

use nvio_driver::Address;
use runner::Runner;

/// Runs the checks of `role` on the controller at `address`, and returns the number of failures.
///
/// # Errors
/// If there is no such role.
pub fn run(role: &str, address: &Address) -> Result<usize, String> {
    let checks = match role {
        "plain" => plain::run,
        "faulty" => faulty::run,
        "idle" => idle::run,
        "pi" => protection::run,
        "busy" => busy::run,
        "cmb" => reset::run,
        "asked-back" => removed::asked_back,
        "pulled" => removed::pulled,
        _ => return Err(format!("no role {role}")),
    };
    let mut runner = Runner::new(role);
    checks(&mut runner, address);
    Ok(runner.failed())
}
