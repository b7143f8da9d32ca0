import { useEffect, useState } from 'react'
import type { Identities, Identity } from './identities'

type Props = { row: Identity; identities: Identities; fault: number | null }

/** The photos of an identity, fetched when they are shown; the one at fault is marked. */
export function Photos({ row, identities, fault }: Props) {
  const [open, setOpen] = useState(false)
  const [urls, setUrls] = useState<(string | null)[]>([])
  const shown = open || fault !== null
  useEffect(() => {
    if (!shown) return
    let gone = false
    identities.thumbnails(row).then((urls) => { if (!gone) setUrls(urls) }, () => undefined)
    return () => { gone = true }
    // eslint-disable-next-line react-hooks/exhaustive-deps -- a row's paths never change, but its photos may when its status does
  }, [identities, row.id, row.status, shown])
  return (
    <details open={shown} onToggle={(event) => { setOpen(event.currentTarget.open) }}>
      <summary>{row.image_paths.length} photos</summary>
      <ul className="photos">
        {row.image_paths.map((path, index) => (
          <li key={path} className={index + 1 === fault ? 'wrong' : ''}>
            {urls[index] && <img src={urls[index]} loading="lazy" alt={`Photo ${index + 1}${index + 1 === fault ? ', at fault' : ''}`} />}
            <span className="number">{index + 1}</span>
          </li>
        ))}
      </ul>
    </details>
  )
}
