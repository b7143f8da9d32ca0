// Made by `python -m tests.migrations.frontend`; do not edit.
const formats: [string, string][] = [
  ["GIF8[79]a", "is a GIF; save it as JPG or PNG"],
  ["RIFF....WEBP", "is a WebP picture; save it as JPG or PNG"],
  ["....ftyp(?:....){0,8}?avi[fs]", "is an AVIF picture; save it as JPG or PNG"],
  ["....ftyp(?:....){0,8}?(?:hei[cmsx]|hev[cmsx]|mi[af]1|msf1)", "is a HEIC photo; on an iPhone choose Settings > Camera > Formats > Most Compatible, or save it as JPG or PNG"],
  ["II\\*\\x00|MM\\x00\\*|IIU\\x00|FUJIFILMCCD-RAW|....ftypcrx ", "is a TIFF or a camera's raw file; save it as JPG or PNG"],
  ["BM....\\x00\\x00\\x00\\x00", "is a BMP; save it as JPG or PNG"],
  ["\\x00\\x00\\x00\\x0cjP  |\\xff\\x4f\\xff\\x51", "is a JPEG 2000 picture; save it as JPG or PNG"],
  ["\\x00\\x00\\x00\\x0cJXL |\\xff\\x0a", "is a JPEG XL picture; save it as JPG or PNG"],
  ["8BPS", "is a Photoshop file; save it as JPG or PNG"],
  ["\\s*%PDF-", "is a PDF; save it as JPG or PNG"],
  ["....(?:ftyp|moov|mdat|wide)|\\x1aE\\xdf\\xa3|RIFF....AVI ", "is a video; upload a still picture of it"],
  ["\\x00\\x00[\\x01\\x02]\\x00", "is an icon; save it as JPG or PNG"],
  ["PK[\\x03\\x05]|Rar!|7z\\xbc\\xaf|\\x1f\\x8b", "is an archive; upload the pictures in it one by one"],
  ["data:image/|/9j/|iVBORw0KGgo", "is a picture written as base64 text; upload the picture itself"],
  ["(?:\\xef\\xbb\\xbf)?\\s*<(?:!doctype html|html|head|body|script)\\b", "is a web page; upload the picture itself"],
  ["(?:\\xef\\xbb\\xbf)?\\s*<(?:.*<)?svg\\b", "is an SVG drawing; save it as JPG or PNG"],
  ["\\x00+$", "begins with zeros only; upload it again"],
  ["--[^\\r\\n]{1,100}\\r?\\nContent-", "is a form (multipart) with a picture in it; upload the picture itself, as a File or Blob"],
  ["\\xc3\\xbf\\xc3\\x98\\xc3\\xbf|(?:\\xef\\xbf\\xbd){3}|(?:\\xc2\\x89|\\xef\\xbf\\xbd)PNG", "was read as text on its way, which destroys a picture; upload the File or Blob itself"],
  ["[\\t\\n\\r -~\\x80-\\xff]+$", "is text; upload the picture itself"],
]

/** Says what a file is by its first 512 bytes: the end of "Photo 3 (a.heic) is a HEIC photo". */
export function describe(start: Uint8Array): string {
  const text = String.fromCharCode(...start.subarray(0, 512))
  const found = formats.find(([pattern]) => new RegExp(`^(?:${pattern})`, 'is').test(text))
  return found?.[1] ?? "is neither a JPG nor a PNG; save it as one of them"
}
