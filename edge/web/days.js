// Days of this browser's clock, written "2026-11-22". When the clocks change, a day has 23 or 25 hours.

export const twoDigits = (value) => String(value).padStart(2, "0");
export const hourOf = (date) => `${twoDigits(date.getHours())}:${twoDigits(date.getMinutes())}`;
export const dayOf = (date) => `${date.getFullYear()}-${twoDigits(date.getMonth() + 1)}-${twoDigits(date.getDate())}`;

/** The day that comes so many days after; from noon to noon, which no change of the clocks moves to another day. */
export function dayAfter(day, days) {
  const noon = new Date(`${day}T12:00:00`);
  noon.setDate(noon.getDate() + days);
  return dayOf(noon);
}

/** Beginning and end in seconds since 1970, and the seconds between. */
export const midnight = (day) => new Date(`${day}T00:00:00`).getTime() / 1000;
export const endOf = (day) => midnight(dayAfter(day, 1));
export const lengthOf = (day) => endOf(day) - midnight(day);
