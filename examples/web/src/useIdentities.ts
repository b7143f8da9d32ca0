import { useEffect, useState } from 'react'
import type { Identities, Identity, Refusal } from './identities'

/** The user's identities, newest first and always up to date; `rows` is null until they are known. */
export function useIdentities(identities: Identities) {
  const [state, setState] = useState<{ rows: Identity[] | null; refused: Refusal | null }>({ rows: null, refused: null })
  useEffect(
    () => identities.follow((rows, refused) => { setState({ rows: refused && !rows.length ? null : rows, refused }) }),
    [identities],
  )
  return state
}
