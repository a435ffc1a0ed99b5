//! Pooling of regions of an image.

use crate::call::Call;
use crate::element_type::ElementType;
use crate::error::Problem;
use crate::meter::Tally;
use crate::shape;
use crate::tensor::Tensor;
use crate::value::Value;

/// The maximum number of samples along an axis of a cell.
const MAX_SAMPLES: usize = 1 << 20;

/// Returns the average or the maximum of samples in each cell of a grid over regions.
pub(super) fn roi_align(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let (x, regions) = (call.tensor(0)?, call.tensor(1)?);
    let [images, channels, height, width] = *x.shape() else {
        let expected = "have 4 axes".into();
        return Err(Problem::InputShape { index: 0, shape: x.shape().to_vec(), expected });
    };
    let batch = call.tensor(2)?.to_i64()?;
    if regions.shape() != [batch.len(), 4] {
        let expected = format!("be [{}, 4]", batch.len());
        return Err(Problem::InputShape { index: 1, shape: regions.shape().to_vec(), expected });
    }
    let regions = Regions::read(call, x.element())?;
    let is_average = match call.text("mode")?.unwrap_or("avg") {
        "avg" => true,
        "max" => false,
        other => {
            return Err(Problem::AttributeValue {
                name: "mode",
                value: format!("{other:?}"),
                accepted: "avg or max",
            });
        }
    };
    let shape = vec![batch.len(), channels, regions.rows, regions.columns];
    let mut pooled = vec![0.0; shape::elements(&shape)?];
    let cells = regions.rows * regions.columns;
    if pooled.is_empty() {
        return Ok(vec![Tensor::from_f64(x.element(), shape, pooled)?.into()]);
    }
    let (values, places) = (x.to_f64()?, call.tensor(1)?.to_f64()?);
    let targets = pooled.chunks_mut(channels * cells);
    let mut tally = Tally::default();
    for ((place, image), target) in places.chunks(4).zip(&batch).zip(targets) {
        let index = usize::try_from(*image).ok().filter(|index| *index < images);
        let image = index.ok_or(Problem::Index { index: *image, size: images })?;
        let [x1, y1, x2, y2] = *place else { continue };
        let vertical = regions.along(y1, y2, regions.rows, height)?;
        let horizontal = regions.along(x1, x2, regions.columns, width)?;
        for row in 0..regions.rows {
            let rows = vertical.samples(row);
            for column in 0..regions.columns {
                let columns = horizontal.samples(column);
                tally.spend(rows.len() + columns.len())?;
                for (index, target) in target.chunks_mut(cells).enumerate() {
                    tally
                        .spend((4 * rows.len()).saturating_mul(columns.len()).saturating_add(8))?;
                    let start = (image * channels + index) * height * width;
                    let channel = values.get(start..start + height * width).unwrap_or_default();
                    if let Some(target) = target.get_mut(row * regions.columns + column) {
                        *target = match is_average {
                            true => average(channel, width, &rows, &columns),
                            false => maximum(channel, width, &rows, &columns),
                        };
                    }
                }
            }
        }
    }
    Ok(vec![Tensor::from_f64(x.element(), shape, pooled)?.into()])
}

/// How regions are divided into cells.
struct Regions {
    /// The number of rows of cells.
    rows: usize,
    /// The number of columns of cells.
    columns: usize,
    /// What coordinates are multiplied by.
    scale: f64,
    /// The number of samples along an axis of a cell; 0 if it depends on the region.
    samples: usize,
    /// Whether places are half an element before the scaled coordinates.
    is_shifted: bool,
    /// Whether coordinates are computed in double precision.
    is_double: bool,
}

/// The samples along an axis of a cell: two elements with weights each; none outside of the image.
type Samples = Vec<Option<[(usize, f64); 2]>>;

impl Regions {
    fn read(call: &Call<'_>, element: ElementType) -> Result<Self, Problem> {
        let mode = call.text("coordinate_transformation_mode")?;
        let is_shifted = match mode.unwrap_or("half_pixel") {
            _ if call.version < 16 => false,
            "half_pixel" => true,
            "output_half_pixel" => false,
            other => {
                return Err(Problem::AttributeValue {
                    name: "coordinate_transformation_mode",
                    value: format!("{other:?}"),
                    accepted: "half_pixel or output_half_pixel",
                });
            }
        };
        Ok(Self {
            rows: shape::size(call.int_or("output_height", 1)?)?,
            columns: shape::size(call.int_or("output_width", 1)?)?,
            scale: call.float_or("spatial_scale", 1.0)?.into(),
            samples: shape::size(call.int_or("sampling_ratio", 0)?)?,
            is_shifted,
            is_double: element == ElementType::F64,
        })
    }

    /// Divides the range between two coordinates into cells of an axis with `size` elements.
    ///
    /// Coordinates are rounded as in the arithmetic of their type, on which the number of samples
    /// depends.
    fn along(&self, from: f64, to: f64, count: usize, size: usize) -> Result<Cells, Problem> {
        let round = |value: f64| if self.is_double { value } else { f64::from(value as f32) };
        let shift = if self.is_shifted { 0.5 } else { 0.0 };
        let [start, end] = [from, to].map(|place| round(round(place * self.scale) - shift));
        let mut length = round(end - start);
        if !self.is_shifted {
            length = length.max(1.0);
        }
        let cell = round(length / count as f64);
        let samples = match self.samples {
            0 => cell.ceil().max(0.0) as usize,
            samples => samples,
        };
        if samples > MAX_SAMPLES {
            return Err(Problem::TooLarge { shape: vec![samples], limit: MAX_SAMPLES });
        }
        shape::elements(&[samples])?;
        Ok(Cells { start, cell, samples, size })
    }
}

/// The cells of a region along an axis.
struct Cells {
    /// The place where the first cell starts.
    start: f64,
    /// The length of a cell.
    cell: f64,
    /// The number of samples of a cell.
    samples: usize,
    /// The number of elements of the axis.
    size: usize,
}

impl Cells {
    /// Returns the samples of a cell.
    fn samples(&self, index: usize) -> Samples {
        let start = self.start + index as f64 * self.cell;
        let places = (0..self.samples)
            .map(|sample| start + (sample as f64 + 0.5) * self.cell / self.samples as f64);
        places.map(|place| neighbors(place, self.size)).collect()
    }
}

/// Returns the elements next to a place with their weights. The outermost elements extend by one
/// element.
fn neighbors(place: f64, size: usize) -> Option<[(usize, f64); 2]> {
    let last = size.checked_sub(1)?;
    if !(-1.0..=size as f64).contains(&place) {
        return None;
    }
    let place = place.clamp(0.0, last as f64);
    let first = place as usize;
    let after = place - first as f64;
    Some([(first, 1.0 - after), ((first + 1).min(last), after)])
}

/// Returns the average of the samples of a cell.
fn average(channel: &[f64], width: usize, rows: &Samples, columns: &Samples) -> f64 {
    let mut sum = 0.0;
    for (row, row_weight) in rows.iter().flatten().flatten() {
        for (column, weight) in columns.iter().flatten().flatten() {
            if *row_weight != 0.0 && *weight != 0.0 {
                sum += row_weight * weight * channel.get(row * width + column).unwrap_or(&0.0);
            }
        }
    }
    sum / (rows.len() * columns.len()).max(1) as f64
}

/// Returns the maximum of a cell: of the weighted elements themselves, as the node tests and the
/// reference implementation of ONNX define it, and not of the samples, which are their sums.
fn maximum(channel: &[f64], width: usize, rows: &Samples, columns: &Samples) -> f64 {
    let samples = rows.iter().flat_map(|row| columns.iter().map(move |column| (row, column)));
    let elements = samples.flat_map(|sample| {
        let (Some(row), Some(column)) = sample else { return [0.0; 4] };
        let element = |row: (usize, f64), column: (usize, f64)| match row.1 * column.1 {
            0.0 => 0.0,
            weight => weight * channel.get(row.0 * width + column.0).unwrap_or(&0.0),
        };
        let [above, below] = *row;
        let [left, right] = *column;
        [element(above, left), element(above, right), element(below, left), element(below, right)]
    });
    let largest = |a: f64, b: f64| if b > a || b.is_nan() { b } else { a };
    elements.reduce(largest).unwrap_or(0.0)
}
