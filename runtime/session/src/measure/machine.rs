//! Readings of the measured machine, such as frequency and temperature, that help to explain times.

use std::fs;
use std::path::Path;

/// The system's readings at one moment; `None` if the system does not report a value.
///
/// # Examples
///
/// ```
/// use hardtack::measure::Machine;
///
/// let before = Machine::now();
/// // … measure …
/// let after = Machine::now();
/// if let Some(true) = after.was_throttled_since(&before) {
///     println!("the processor was throttled");
/// }
/// assert_eq!(before.model, after.model);
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Machine {
    /// The name of the board or the processor.
    pub model: Option<String>,
    /// The frequency governor: `performance`, `schedutil`, …
    pub governor: Option<String>,
    /// The frequency of the first core, in MHz.
    pub frequency_mhz: Option<u32>,
    /// The maximum frequency of the first core, in MHz.
    pub most_mhz: Option<u32>,
    /// The temperature of the warmest zone, in thousandths of a degree Celsius.
    pub temperature: Option<i32>,
    /// Whether the processor is throttled because of heat or its power supply.
    pub throttled: Option<bool>,
    /// How often the first core was throttled because of heat.
    pub throttle_count: Option<u64>,
    /// The energy counter, in microjoules. It wraps around at some value.
    pub energy: Option<u64>,
}

impl Machine {
    /// Reads the state of this machine.
    pub fn now() -> Machine {
        Machine::read(Path::new("/"))
    }

    /// Reads the state from system files under `root`.
    fn read(root: &Path) -> Machine {
        let text = |path: &str| {
            let text = fs::read_to_string(root.join(path)).ok()?;
            let text = text.trim_end_matches(['\0', '\n']).trim();
            (!text.is_empty()).then(|| text.to_owned())
        };
        let number = |path: &str| text(path)?.parse::<u64>().ok();
        let mhz = |path: &str| Some((number(path)? / 1000) as u32);
        let backend = || {
            let text = fs::read_to_string(root.join("proc/cpuinfo")).ok()?;
            let line = text.lines().find_map(|line| line.strip_prefix("model name"))?;
            Some(line.trim_start_matches([' ', '\t', ':']).to_owned())
        };
        let flags = text("sys/devices/platform/soc/soc:firmware/get_throttled")
            .and_then(|flags| u32::from_str_radix(flags.trim_start_matches("0x"), 16).ok());
        let cpu = "sys/devices/system/cpu/cpu0";
        Machine {
            model: text("proc/device-tree/model").or_else(backend),
            governor: text(&format!("{cpu}/cpufreq/scaling_governor")),
            frequency_mhz: mhz(&format!("{cpu}/cpufreq/scaling_cur_freq")),
            most_mhz: mhz(&format!("{cpu}/cpufreq/cpuinfo_max_freq")),
            temperature: temperature(&root.join("sys/class/thermal")),
            // The lowest four bits describe the present.
            throttled: flags.map(|flags| flags & 15 != 0),
            throttle_count: number(&format!("{cpu}/thermal_throttle/core_throttle_count")),
            energy: number("sys/class/powercap/intel-rapl:0/energy_uj"),
        }
    }

    /// Returns whether the machine was throttled at either reading or in between.
    pub fn was_throttled_since(&self, before: &Machine) -> Option<bool> {
        let counted = match (before.throttle_count, self.throttle_count) {
            (Some(before), Some(after)) => Some(after > before),
            _ => None,
        };
        [before.throttled, self.throttled, counted].into_iter().flatten().reduce(|a, b| a || b)
    }

    /// Returns the energy used since `before`, in microjoules; `None` if the counter wrapped
    /// around.
    pub fn energy_since(&self, before: &Machine) -> Option<u64> {
        self.energy?.checked_sub(before.energy?)
    }
}

/// Returns the temperature of the warmest zone.
fn temperature(zones: &Path) -> Option<i32> {
    let zones = fs::read_dir(zones).ok()?;
    let temperatures = zones.filter_map(|zone| {
        let text = fs::read_to_string(zone.ok()?.path().join("temp")).ok()?;
        text.trim().parse().ok()
    });
    temperatures.max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_board_is_read_from_its_system_files() {
        let root = std::env::temp_dir().join(format!("hardtack-machine-{}", std::process::id()));
        for (path, text) in [
            ("proc/device-tree/model", "Raspberry Pi 4 Model B Rev 1.4\0"),
            ("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "ondemand\n"),
            ("sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", "1500000\n"),
            ("sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq", "1800000\n"),
            ("sys/class/thermal/thermal_zone0/temp", "61500\n"),
            ("sys/class/thermal/thermal_zone1/temp", "48000\n"),
            ("sys/devices/platform/soc/soc:firmware/get_throttled", "50004\n"),
            ("sys/class/powercap/intel-rapl:0/energy_uj", "123\n"),
        ] {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let board = Machine::read(&root);
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(board.model.as_deref(), Some("Raspberry Pi 4 Model B Rev 1.4"));
        assert_eq!(board.governor.as_deref(), Some("ondemand"));
        assert_eq!((board.frequency_mhz, board.most_mhz), (Some(1500), Some(1800)));
        assert_eq!((board.temperature, board.throttled), (Some(61_500), Some(true)));
        let before = Machine { throttled: Some(false), energy: Some(23), ..Machine::default() };
        assert_eq!(board.was_throttled_since(&before), Some(true));
        assert_eq!(board.energy_since(&before), Some(100));
        assert_eq!(before.energy_since(&board), None);
        assert_eq!(Machine::read(&root), Machine::default());
        assert_eq!(Machine::default().was_throttled_since(&Machine::default()), None);
    }
}
