// Durations and times in a few words.
"use strict";

segint.duration = function (seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 1) return "under 1 s";
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
  return `${Math.floor(whole / 86400)} d ${Math.floor((whole % 86400) / 3600)} h`;
};

segint.time = function (text) {
  return text ? new Date(text).toLocaleString() : "–";
};

segint.bytes = function (count) {
  if (count === null || count === undefined) return "–";
  const units = ["bytes", "kB", "MB", "GB", "TB"];
  let unit = 0;
  let value = count;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${unit === 0 ? value : value.toFixed(1)} ${units[unit]}`;
};

segint.stateColor = { queued: "azure", running: "blue", succeeded: "green", failed: "red", cancelled: "secondary", expired: "secondary" };
